{{/*
The metadata of a pod. Call with a dict: root, component, values, and maybe annotations; with `lasting` for a pod that an
upgrade must not replace for the sake of a version in its labels.
*/}}
{{- define "shopping-cart.pod.metadata" -}}
{{- with merge (dict) .values.podAnnotations (default dict .annotations) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
labels:
  {{- if .lasting }}
  {{- include "shopping-cart.selector" (list .root .component) | nindent 2 }}
  {{- with .root.Values.commonLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- else }}
  {{- include "shopping-cart.labels" (list .root .component) | nindent 2 }}
  {{- end }}
  {{- with .values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* What all pods of the shop's own image have in common. Call with a dict: root, component, values. */}}
{{- define "shopping-cart.pod" -}}
serviceAccountName: {{ include "shopping-cart.account" (list .root .component .values) }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- include "shopping-cart.pod.place" . }}
{{- end }}

{{/* Where a pod runs, and with which pull secrets. Begins with a line break. */}}
{{- define "shopping-cart.pod.place" }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "shopping-cart.pod.spread" }}
topologySpreadConstraints:
{{- if .values.topologySpreadConstraints }}
  {{- toYaml .values.topologySpreadConstraints | nindent 2 }}
{{- else }}
{{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "shopping-cart.selector" (list $.root $.component) | nindent 8 }}
    matchLabelKeys: [pod-template-hash]
{{- end }}
{{- end }}
{{- end }}

{{- define "shopping-cart.container.security" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{/* Environment variables of every process of the shop's own. */}}
{{- define "shopping-cart.env" -}}
- {name: LOG_LEVEL, value: {{ .Values.log.level }}}
- {name: LOG_FORMAT, value: {{ .Values.log.format }}}
{{- with .Values.telemetry.endpoint }}
- {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ . | quote }}}
- {name: OTEL_EXPORTER_OTLP_PROTOCOL, value: {{ $.Values.telemetry.protocol }}}
{{- end }}
{{- end }}

{{- define "shopping-cart.env.server" -}}
{{ include "shopping-cart.env" . }}
- {name: SHUTDOWN_DELAY, value: {{ .Values.shutdown.delay | quote }}}
- {name: SHUTDOWN_GRACE, value: {{ .Values.shutdown.grace | quote }}}
{{- end }}

{{/* libpq's variables, from the Secret. Call with (list $ "product"). */}}
{{- define "shopping-cart.env.database" -}}
{{- $secret := include "shopping-cart.database.secret" . }}
{{- $database := (index (index . 0).Values (index . 1)).database }}
{{- range list (list "PGHOST" "host") (list "PGPORT" "port") (list "PGUSER" "username") (list "PGPASSWORD" "password") (list "PGDATABASE" "dbname") }}
{{- $key := index . 1 }}
{{- if $database.existingSecret }}
{{- $key = index $database.keys $key }}
{{- end }}
{{- if $key }}
- name: {{ index . 0 }}
  valueFrom: {secretKeyRef: {name: {{ $secret }}, key: {{ $key | quote }}}}
{{- end }}
{{- end }}
{{- with $database.sslmode }}
- {name: PGSSLMODE, value: {{ . }}}
{{- end }}
{{- if $database.ca.secretName }}
- {name: PGSSLROOTCERT, value: /ca/{{ $database.ca.key }}}
{{- end }}
- {name: DATABASE_POOL_SIZE, value: {{ $database.poolSize | quote }}}
- {name: DATABASE_POOL_WAITING, value: {{ $database.poolWaiting | quote }}}
- {name: DATABASE_TIMEOUT, value: {{ $database.timeout | quote }}}
{{- end }}

{{/* The volume with the certificate authority of a database, and its mount, where there is one. */}}
{{- define "shopping-cart.ca.volume" }}
{{- with (index (index . 0).Values (index . 1)).database.ca.secretName }}
volumes:
  - name: ca
    secret: {secretName: {{ . }}}
{{- end }}
{{- end }}

{{- define "shopping-cart.ca.mount" }}
{{- if (index (index . 0).Values (index . 1)).database.ca.secretName }}
volumeMounts:
  - {name: ca, mountPath: /ca, readOnly: true}
{{- end }}
{{- end }}
