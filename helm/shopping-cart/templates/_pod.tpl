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

{{/* What a service knows about its database. Call with (list $ "product"). */}}
{{- define "shopping-cart.env.database" -}}
{{- $database := (index (index . 0).Values (index . 1)).database }}
- {name: DATABASE_CREDENTIALS, value: /credentials}
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

{{/*
The volumes of a service with a database: the Secret, whose files are read at each new connection, so that a password
which somebody rotates needs no restart; and the certificate authority, where there is one. A file that a variable of
extraEnv stands in for is left out. Call with (list $ "product").
*/}}
{{- define "shopping-cart.database.volumes" }}
{{- $service := index (index . 0).Values (index . 1) }}
{{- $database := $service.database }}
{{- $overridden := dict }}
{{- range $service.extraEnv }}
{{- $_ := set $overridden .name true }}
{{- end }}
volumes:
  - name: credentials
    secret:
      secretName: {{ include "shopping-cart.database.secret" . }}
      items:
        {{- range list (list "host" "PGHOST") (list "port" "PGPORT") (list "username" "PGUSER") (list "password" "PGPASSWORD") (list "dbname" "PGDATABASE") }}
        {{- $key := index . 0 }}
        {{- if $database.existingSecret }}
        {{- $key = index $database.keys $key }}
        {{- end }}
        {{- if and $key (not (hasKey $overridden (index . 1))) }}
        - {key: {{ $key | quote }}, path: {{ index . 0 }}}
        {{- end }}
        {{- end }}
  {{- with $database.ca.secretName }}
  - name: ca
    secret: {secretName: {{ . }}}
  {{- end }}
{{- end }}

{{- define "shopping-cart.database.mounts" }}
volumeMounts:
  - {name: credentials, mountPath: /credentials, readOnly: true}
  {{- if (index (index . 0).Values (index . 1)).database.ca.secretName }}
  - {name: ca, mountPath: /ca, readOnly: true}
  {{- end }}
{{- end }}
