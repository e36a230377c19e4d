{{/* The bundled PostgreSQL of a service, for those who bring none. Call each with (list $ "product"). */}}

{{- define "shopping-cart.database.bundled" -}}
{{- if not (index (index . 0).Values (index . 1)).database.existingSecret }}true{{ end }}
{{- end }}

{{- define "shopping-cart.database.service" -}}
{{- $component := printf "%s-db" (index . 1) -}}
apiVersion: v1
kind: Service
metadata:
  {{- include "shopping-cart.metadata" (dict "root" (index . 0) "component" $component) | nindent 2 }}
spec:
  {{- include "shopping-cart.families" (index . 0) | indent 2 }}
  selector:
    {{- include "shopping-cart.selector" (list (index . 0) $component) | nindent 4 }}
  ports:
    - {name: postgresql, port: 5432, targetPort: 5432}
{{- end }}

{{/* The same keys as CloudNativePG's. What is in the cluster already counts, so an upgrade changes no password. */}}
{{- define "shopping-cart.database.credentials" -}}
{{- $root := index . 0 }}
{{- $component := printf "%s-db" (index . 1) }}
{{- $name := include "shopping-cart.component" (list $root $component) }}
{{- $found := default dict (lookup "v1" "Secret" $root.Release.Namespace $name).data }}
{{- $given := (index $root.Values (index . 1)).database.password }}
{{- $password := default (randAlphaNum 32 | b64enc) $found.password }}
{{- if $given }}
{{- /* Nothing is random then: tools that only render get the same each time. */}}
{{- $password = $given | b64enc }}
{{- end }}
apiVersion: v1
kind: Secret
metadata:
  {{- include "shopping-cart.metadata" (dict "root" $root "component" $component) | nindent 2 }}
type: Opaque
data:
  host: {{ $name | b64enc }}
  port: {{ "5432" | b64enc }}
  username: {{ index . 1 | b64enc }}
  dbname: {{ index . 1 | b64enc }}
  password: {{ $password }}
{{- end }}

{{- define "shopping-cart.database.config" -}}
apiVersion: v1
kind: ConfigMap
metadata:
  {{- include "shopping-cart.metadata" (dict "root" (index . 0) "component" (printf "%s-db" (index . 1))) | nindent 2 }}
data:
  {{- ((index . 0).Files.Glob "files/postgresql/*").AsConfig | nindent 2 }}
{{- end }}

{{/*
initdb looks up the name of its user. Under a number that the image does not know (OpenShift chooses one), an init container
writes the number into a copy of /etc/passwd. `true` where that is so. Call with $.
*/}}
{{- define "shopping-cart.database.server.nameless" -}}
{{- $context := include "shopping-cart.security" (dict "root" . "context" .Values.postgresql.podSecurityContext) | fromYaml }}
{{- if ne (int (get $context "runAsUser")) 999 }}true{{ end }}
{{- end }}

{{/* The volumes of a bundled database, but for its data where that has a claim of the StatefulSet's own. */}}
{{- define "shopping-cart.database.server.volumes" -}}
{{- $root := index . 0 }}
{{- $storage := $root.Values.postgresql.storage }}
{{- $name := include "shopping-cart.component" (list $root (printf "%s-db" (index . 1))) -}}
- name: run
  emptyDir: {}
- name: tmp
  emptyDir: {}
- name: config
  configMap: {name: {{ $name }}}
- name: credentials
  secret: {secretName: {{ $name }}}
{{- if include "shopping-cart.database.server.nameless" $root }}
- name: passwd
  emptyDir: {}
{{- end }}
{{- if not $storage.enabled }}
- name: data
  emptyDir: {}
{{- else if get $storage.existingClaims (index . 1) }}
- name: data
  persistentVolumeClaim: {claimName: {{ get $storage.existingClaims (index . 1) }}}
{{- end }}
{{- with $root.Values.postgresql.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "shopping-cart.database.server.env" -}}
# On the volume, whatever the tag: a server of another major version refuses the data that is there. It would
# start with none otherwise.
- {name: PGDATA, value: /var/lib/postgresql/18/docker}
# Nobody needs the superuser's password: start.sh makes one up.
- {name: POSTGRES_USER, value: postgres}
- {name: POSTGRES_DB, value: {{ index . 1 }}}
{{- end }}

{{- define "shopping-cart.database.statefulset" -}}
{{- $root := index . 0 }}
{{- $component := printf "%s-db" (index . 1) }}
{{- $name := include "shopping-cart.component" (list $root $component) }}
{{- $values := $root.Values.postgresql }}
{{- $storage := $values.storage }}
{{- $image := include "shopping-cart.reference" (dict "root" $root "image" $values.image "tag" "18") }}
{{- $nameless := include "shopping-cart.database.server.nameless" $root }}
{{- $sums := dict "checksum/config" (($root.Files.Glob "files/postgresql/*").AsConfig | sha256sum) }}
{{- $pod := dict "root" $root "component" $component "values" $values "annotations" $sums "lasting" true }}
apiVersion: apps/v1
kind: StatefulSet
metadata:
  {{- include "shopping-cart.metadata" (dict "root" $root "component" $component "annotations" $values.annotations) | nindent 2 }}
spec:
  serviceName: {{ $name }}
  replicas: 1
  selector:
    matchLabels:
      {{- include "shopping-cart.selector" (list $root $component) | nindent 6 }}
  template:
    metadata:
      {{- include "shopping-cart.pod.metadata" $pod | nindent 6 }}
    spec:
      {{- include "shopping-cart.pod" $pod | nindent 6 }}
      # PostgreSQL's fast shutdown: it ends sessions and writes a checkpoint.
      terminationGracePeriodSeconds: 60
      {{- if or $nameless $values.initContainers }}
      initContainers:
        {{- if $nameless }}
        - name: passwd
          image: {{ $image | quote }}
          imagePullPolicy: {{ $values.image.pullPolicy }}
          command:
            - sh
            - -c
            - cp /etc/passwd /passwd/passwd; getent passwd "$(id -u)" || echo "shop:x:$(id -u):$(id -g)::/tmp:/bin/false" >>/passwd/passwd
          {{- include "shopping-cart.container" (dict "root" $root "values" $values) | nindent 10 }}
          volumeMounts:
            - {name: passwd, mountPath: /passwd}
        {{- end }}
        {{- with $values.initContainers }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- end }}
      containers:
        - name: postgresql
          image: {{ $image | quote }}
          imagePullPolicy: {{ $values.image.pullPolicy }}
          command: [bash, /shop/start.sh]
          args:
            {{- range $key, $value := $values.parameters }}
            - -c
            - {{ printf "%s=%v" $key $value | quote }}
            {{- end }}
          {{- include "shopping-cart.env" (dict "own" (include "shopping-cart.database.server.env" .) "values" $values) | nindent 10 }}
          ports:
            - {name: postgresql, containerPort: 5432}
          # Over TCP: the server that start.sh and the first start use for their preparations listens on the socket only.
          startupProbe:
            exec: {command: [pg_isready, -q, -h, 127.0.0.1]}
            {{- toYaml $values.probes.startup | nindent 12 }}
          readinessProbe:
            exec: {command: [pg_isready, -q, -h, 127.0.0.1]}
            {{- toYaml $values.probes.readiness | nindent 12 }}
          livenessProbe:
            exec: {command: [pg_isready, -q, -h, 127.0.0.1]}
            {{- toYaml $values.probes.liveness | nindent 12 }}
          {{- include "shopping-cart.container" (dict "root" $root "values" $values) | nindent 10 }}
          volumeMounts:
            # A folder above PGDATA, where postgres:18 has its volume.
            - {name: data, mountPath: /var/lib/postgresql}
            - {name: run, mountPath: /var/run/postgresql}
            - {name: tmp, mountPath: /tmp}
            - {name: config, mountPath: /shop, readOnly: true}
            # The role's name and password. start.sh looks at them all the time: a new password needs no restart.
            - {name: credentials, mountPath: /credentials, readOnly: true}
            - {name: config, mountPath: /docker-entrypoint-initdb.d/role.sql, subPath: role.sql, readOnly: true}
            {{- if $nameless }}
            - {name: passwd, mountPath: /etc/passwd, subPath: passwd, readOnly: true}
            {{- end }}
            {{- with $values.extraVolumeMounts }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
        {{- with $values.extraContainers }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      volumes:
        {{- include "shopping-cart.database.server.volumes" . | nindent 8 }}
  {{- with $storage.retention }}
  persistentVolumeClaimRetentionPolicy:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if and $storage.enabled (not (get $storage.existingClaims (index . 1))) }}
  volumeClaimTemplates:
    - metadata:
        name: data
        labels:
          {{- include "shopping-cart.selector" (list $root $component) | nindent 10 }}
      spec:
        accessModes: [ReadWriteOnce]
        {{- with $storage.className }}
        storageClassName: {{ ternary "" . (eq . "-") | quote }}
        {{- end }}
        resources: {requests: {storage: {{ $storage.size }}}}
  {{- end }}
{{- end }}
