{{/* The bundled PostgreSQL of a service, for those who bring none. Call each with (list $ "product"). */}}

{{- define "shopping-cart.database.bundled" -}}
{{- if not (index (index . 0).Values (index . 1)).database.existingSecret }}true{{ end }}
{{- end }}

{{- define "shopping-cart.database.service" -}}
{{- $db := list (index . 0) (printf "%s-db" (index . 1)) -}}
apiVersion: v1
kind: Service
metadata:
  {{- include "shopping-cart.metadata" $db | nindent 2 }}
spec:
  selector:
    {{- include "shopping-cart.selector" $db | nindent 4 }}
  ports:
    - {name: postgresql, port: 5432, targetPort: 5432}
{{- end }}

{{/* The same keys as CloudNativePG's. What is in the cluster already counts, so an upgrade changes no password. */}}
{{- define "shopping-cart.database.credentials" -}}
{{- $root := index . 0 }}
{{- $db := list $root (printf "%s-db" (index . 1)) }}
{{- $name := include "shopping-cart.component" $db }}
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
  {{- include "shopping-cart.metadata" $db | nindent 2 }}
type: Opaque
data:
  host: {{ $name | b64enc }}
  port: {{ "5432" | b64enc }}
  username: {{ index . 1 | b64enc }}
  dbname: {{ index . 1 | b64enc }}
  password: {{ $password }}
{{- end }}

{{- define "shopping-cart.database.config" -}}
{{- $db := list (index . 0) (printf "%s-db" (index . 1)) -}}
apiVersion: v1
kind: ConfigMap
metadata:
  {{- include "shopping-cart.metadata" $db | nindent 2 }}
data:
  {{- ((index . 0).Files.Glob "files/postgresql/*").AsConfig | nindent 2 }}
{{- end }}

{{- define "shopping-cart.database.statefulset" -}}
{{- $root := index . 0 }}
{{- $component := printf "%s-db" (index . 1) }}
{{- $db := list $root $component }}
{{- $name := include "shopping-cart.component" $db }}
{{- $values := $root.Values.postgresql }}
{{- $sums := dict "checksum/config" (($root.Files.Glob "files/postgresql/*").AsConfig | sha256sum) }}
{{- $pod := dict "root" $root "component" $component "values" $values "annotations" $sums "lasting" true }}
apiVersion: apps/v1
kind: StatefulSet
metadata:
  {{- include "shopping-cart.metadata" $db | nindent 2 }}
spec:
  serviceName: {{ $name }}
  replicas: 1
  selector:
    matchLabels:
      {{- include "shopping-cart.selector" $db | nindent 6 }}
  template:
    metadata:
      {{- include "shopping-cart.pod.metadata" $pod | nindent 6 }}
    spec:
      serviceAccountName: {{ $name }}
      automountServiceAccountToken: false
      enableServiceLinks: false
      securityContext:
        runAsNonRoot: true
        runAsUser: 999
        runAsGroup: 999
        fsGroup: 999
        fsGroupChangePolicy: OnRootMismatch
        seccompProfile: {type: RuntimeDefault}
      {{- include "shopping-cart.pod.place" $pod | nindent 6 }}
      # PostgreSQL's fast shutdown: it ends sessions and writes a checkpoint.
      terminationGracePeriodSeconds: 60
      containers:
        - name: postgresql
          image: {{ include "shopping-cart.reference" (list $values.image "18") | quote }}
          imagePullPolicy: IfNotPresent
          command: [bash, /shop/start.sh]
          args:
            {{- range $key, $value := $values.parameters }}
            - -c
            - {{ printf "%s=%v" $key $value | quote }}
            {{- end }}
          env:
            # On the volume, whatever the tag: a server of another major version refuses the data that is there. It would
            # start with none otherwise.
            - {name: PGDATA, value: /var/lib/postgresql/18/docker}
            # Nobody needs the superuser's password: start.sh makes one up.
            - {name: POSTGRES_USER, value: postgres}
            - {name: POSTGRES_DB, value: {{ index . 1 }}}
          ports:
            - {name: postgresql, containerPort: 5432}
          # Over TCP: the server that the first start uses for its own preparations listens on the socket only.
          startupProbe:
            exec: {command: [pg_isready, -q, -h, 127.0.0.1]}
            periodSeconds: 1
            timeoutSeconds: 5
            failureThreshold: 300
          readinessProbe:
            exec: {command: [pg_isready, -q, -h, 127.0.0.1]}
            periodSeconds: 10
            timeoutSeconds: 5
          livenessProbe:
            exec: {command: [pg_isready, -q, -h, 127.0.0.1]}
            periodSeconds: 20
            timeoutSeconds: 10
            failureThreshold: 6
          resources:
            {{- toYaml $values.resources | nindent 12 }}
          {{- include "shopping-cart.container.security" $root | nindent 10 }}
          volumeMounts:
            # A folder above PGDATA, where postgres:18 has its volume.
            - {name: data, mountPath: /var/lib/postgresql}
            - {name: run, mountPath: /var/run/postgresql}
            - {name: tmp, mountPath: /tmp}
            - {name: config, mountPath: /shop, readOnly: true}
            # The role's name and password. start.sh looks at them all the time: a new password needs no restart.
            - {name: credentials, mountPath: /credentials, readOnly: true}
            - {name: config, mountPath: /docker-entrypoint-initdb.d/role.sql, subPath: role.sql, readOnly: true}
      volumes:
        - name: run
          emptyDir: {}
        - name: tmp
          emptyDir: {}
        - name: config
          configMap: {name: {{ $name }}}
        - name: credentials
          secret: {secretName: {{ $name }}}
  volumeClaimTemplates:
    - metadata:
        name: data
        labels:
          {{- include "shopping-cart.selector" $db | nindent 10 }}
      spec:
        accessModes: [ReadWriteOnce]
        {{- with $values.storage.className }}
        storageClassName: {{ . }}
        {{- end }}
        resources: {requests: {storage: {{ $values.storage.size }}}}
{{- end }}
