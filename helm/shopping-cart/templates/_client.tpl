{{/* What the pods of a service, and of its migration, know about its database. */}}

{{/* What the values say in place of the Secret, as a dict of its parts. Call with a service's database. */}}
{{- define "shopping-cart.database.given" -}}
{{- $given := dict }}
{{- if .existingSecret }}
{{- range $part, $value := pick . "host" "username" "dbname" }}
{{- if $value }}
{{- $_ := set $given $part $value }}
{{- end }}
{{- end }}
{{- if .host }}
{{- $_ := set $given "port" (toString .port) }}
{{- end }}
{{- end }}
{{- toYaml $given }}
{{- end }}

{{/* The variables. Call with (list $ "product"). */}}
{{- define "shopping-cart.env.database" -}}
{{- $database := (index (index . 0).Values (index . 1)).database -}}
- {name: DATABASE_CREDENTIALS, value: /credentials}
{{- $variables := dict "host" "PGHOST" "port" "PGPORT" "username" "PGUSER" "dbname" "PGDATABASE" }}
{{- range $part, $value := include "shopping-cart.database.given" $database | fromYaml }}
- {name: {{ get $variables $part }}, value: {{ $value | quote }}}
{{- end }}
{{- with $database.sslmode }}
- {name: PGSSLMODE, value: {{ . }}}
{{- end }}
{{- if $database.ca.secretName }}
- {name: PGSSLROOTCERT, value: /ca/{{ $database.ca.key }}}
{{- else if eq $database.sslmode "verify-full" }}
# The authorities that the image knows.
- {name: PGSSLROOTCERT, value: system}
{{- end }}
- {name: DATABASE_POOL_SIZE, value: {{ $database.poolSize | quote }}}
- {name: DATABASE_POOL_WAITING, value: {{ $database.poolWaiting | quote }}}
- {name: DATABASE_TIMEOUT, value: {{ $database.timeout | quote }}}
{{- end }}

{{/*
The volumes: the Secret, whose files are read at each new connection, so that a password which somebody rotates needs no
restart; and the certificate authority, where there is one. A file for which a value or a variable of extraEnv stands in is
left out. Call with (list $ "product").
*/}}
{{- define "shopping-cart.database.volumes" }}
{{- $service := index (index . 0).Values (index . 1) }}
{{- $database := $service.database }}
{{- $given := include "shopping-cart.database.given" $database | fromYaml }}
{{- $overridden := list }}
{{- range $service.extraEnv }}
{{- $overridden = append $overridden .name }}
{{- end -}}
- name: credentials
  secret:
    secretName: {{ include "shopping-cart.database.secret" . }}
    items:
      {{- range list (list "host" "PGHOST") (list "port" "PGPORT") (list "username" "PGUSER") (list "password" "PGPASSWORD") (list "dbname" "PGDATABASE") }}
      {{- $part := index . 0 }}
      {{- $key := ternary (get $database.keys $part) $part (ne $database.existingSecret "") }}
      {{- if and $key (not (hasKey $given $part)) (not (has (index . 1) $overridden)) }}
      - {key: {{ $key | quote }}, path: {{ $part }}}
      {{- end }}
      {{- end }}
{{- with $database.ca.secretName }}
- name: ca
  secret: {secretName: {{ . }}}
{{- end }}
{{- with $service.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Their mounts. Call with the service's values. */}}
{{- define "shopping-cart.database.mounts" -}}
- {name: credentials, mountPath: /credentials, readOnly: true}
{{- if .database.ca.secretName }}
- {name: ca, mountPath: /ca, readOnly: true}
{{- end }}
{{- with .extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}
