{{/*
"true" if the chart brings the database of a service, and empty if the database is the user's own. Arguments:
  root       the root context
  component  "product" or "order"
*/}}
{{- define "shopping-cart.database.isBundled" -}}
{{- if not (index .root.Values .component).database.existingSecret }}true{{ end }}
{{- end }}

{{/*
The name of the Secret with a database's address and credentials. Arguments:
  root       the root context
  component  "product" or "order"
*/}}
{{- define "shopping-cart.database.secretName" -}}
{{- $bundled := include "shopping-cart.componentName" (dict "root" .root "component" (printf "%s-db" .component)) }}
{{- default $bundled (index .root.Values .component).database.existingSecret }}
{{- end }}

{{/*
The parts of an address that values give in place of the Secret, as a YAML mapping with some of host, port, username and
dbname. Arguments: the `database` values of a service.
*/}}
{{- define "shopping-cart.database.overrides" -}}
{{- $overrides := dict }}
{{- if .existingSecret }}
{{- range $part, $value := pick . "host" "username" "dbname" }}
{{- if $value }}
{{- $_ := set $overrides $part $value }}
{{- end }}
{{- end }}
{{- if .host }}
{{- $_ := set $overrides "port" (toString .port) }}
{{- end }}
{{- end }}
{{- toYaml $overrides }}
{{- end }}

{{/*
The servers besides the database itself that a service connects to, as a YAML mapping of "pooler" and "readOnly" to their values.
Empty with the bundled database. Arguments: the `database` values of a service.
*/}}
{{- define "shopping-cart.database.others" -}}
{{- $others := dict }}
{{- if .existingSecret }}
{{- range $name, $server := pick . "pooler" "readOnly" }}
{{- if $server.host }}
{{- $_ := set $others $name $server }}
{{- end }}
{{- end }}
{{- end }}
{{- toYaml $others }}
{{- end }}

{{/*
The volumes of a service, and of its migration: the Secret, the certificate authority if there is one, and extraVolumes. The
service reads the Secret's files for each new connection, so a rotated password needs no restart. A file is left out if a
value or a variable of extraEnv replaces it. Arguments:
  root       the root context
  component  "product" or "order"
*/}}
{{- define "shopping-cart.database.volumes" }}
{{- $service := index .root.Values .component }}
{{- $database := $service.database }}
{{- $overrides := include "shopping-cart.database.overrides" $database | fromYaml }}
{{- $extraNames := list }}
{{- range $service.extraEnv }}
{{- $extraNames = append $extraNames .name }}
{{- end -}}
- name: credentials
  secret:
    secretName: {{ include "shopping-cart.database.secretName" . }}
    items:
      {{- range list (dict "file" "host" "variable" "PGHOST") (dict "file" "port" "variable" "PGPORT") (dict "file" "username" "variable" "PGUSER") (dict "file" "password" "variable" "PGPASSWORD") (dict "file" "dbname" "variable" "PGDATABASE") }}
      {{- $key := ternary (get $database.keys .file) .file (ne $database.existingSecret "") }}
      {{- if and $key (not (hasKey $overrides .file)) (not (has .variable $extraNames)) }}
      - {key: {{ $key | quote }}, path: {{ .file }}}
      {{- end }}
      {{- end }}
{{- with $database.ca.secretName }}
- name: ca
  secret:
    secretName: {{ . }}
    # The Secret may have the authority's private key as well, as CloudNativePG's `…-ca` does.
    items: [{key: {{ $database.ca.key | quote }}, path: {{ $database.ca.key | quote }}}]
{{- end }}
{{- with $service.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/*
The mounts of those volumes. Arguments: the values of the service.
*/}}
{{- define "shopping-cart.database.volumeMounts" -}}
- {name: credentials, mountPath: /credentials, readOnly: true}
{{- if .database.ca.secretName }}
- {name: ca, mountPath: /ca, readOnly: true}
{{- end }}
{{- with .extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/*
"true" if an init container must add the container's user to /etc/passwd, where initdb looks it up: the cluster (as OpenShift
does) or values chose a user ID that the image does not know. Arguments: the root context.
*/}}
{{- define "shopping-cart.postgresql.needsPasswd" -}}
{{- $context := include "shopping-cart.securityContext" (dict "root" . "context" .Values.postgresql.podSecurityContext) | fromYaml }}
{{- if ne (int (get $context "runAsUser")) 999 }}true{{ end }}
{{- end }}

{{/*
The volumes of a bundled PostgreSQL, without the data volume if the StatefulSet claims it. Arguments:
  root       the root context
  component  "product" or "order"
*/}}
{{- define "shopping-cart.postgresql.volumes" -}}
{{- $storage := .root.Values.postgresql.storage }}
{{- $name := include "shopping-cart.componentName" (dict "root" .root "component" (printf "%s-db" .component)) -}}
- name: run
  emptyDir: {}
- name: tmp
  emptyDir: {}
- name: config
  configMap: {name: {{ $name }}}
- name: credentials
  secret: {secretName: {{ $name }}}
{{- if include "shopping-cart.postgresql.needsPasswd" .root }}
- name: passwd
  emptyDir: {}
{{- end }}
{{- if not $storage.enabled }}
- name: data
  emptyDir: {}
{{- else if get $storage.existingClaims .component }}
- name: data
  persistentVolumeClaim: {claimName: {{ get $storage.existingClaims .component }}}
{{- end }}
{{- with .root.Values.postgresql.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}
