{{/*
The environment of a container, each name once. Variables of extraEnv replace those of the chart. Arguments:
  chart   the chart's variables, as a YAML list
  values  values with extraEnv and extraEnvFrom
*/}}
{{- define "shopping-cart.env" -}}
{{- $names := list }}
{{- $env := list }}
{{- range reverse (concat (.chart | fromYamlArray) .values.extraEnv) }}
{{- if not (has .name $names) }}
{{- $names = append $names .name }}
{{- $env = prepend $env . }}
{{- end }}
{{- end }}
env:
  {{- toYaml $env | nindent 2 }}
{{- with .values.extraEnvFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/*
Variables of every process of the shop. Arguments: the root context.
*/}}
{{- define "shopping-cart.env.common" -}}
- {name: LOG_LEVEL, value: {{ .Values.log.level | quote }}}
- {name: LOG_FORMAT, value: {{ .Values.log.format }}}
{{- with .Values.telemetry.endpoint }}
- {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ . | quote }}}
- {name: OTEL_EXPORTER_OTLP_PROTOCOL, value: {{ $.Values.telemetry.protocol }}}
# For calls without a trace. Most have one, of which Envoy decides.
- {name: OTEL_TRACES_SAMPLER, value: parentbased_traceidratio}
- {name: OTEL_TRACES_SAMPLER_ARG, value: {{ $.Values.telemetry.traces.sampleRatio | toString | quote }}}
- {name: OTEL_METRICS_EXPORTER, value: {{ ternary "otlp" "none" $.Values.telemetry.metrics.otlp }}}
{{- end }}
{{- end }}

{{/*
Variables of a service. Arguments:
  root       the root context
  component  "product" or "order"
*/}}
{{- define "shopping-cart.env.service" -}}
{{ include "shopping-cart.env.common" .root }}
- {name: SHUTDOWN_DELAY, value: {{ .root.Values.shutdown.delay | quote }}}
- {name: SHUTDOWN_GRACE, value: {{ .root.Values.shutdown.grace | quote }}}
{{ include "shopping-cart.env.database" . }}
{{- with include "shopping-cart.env.database.others" . }}
{{ . }}
{{- end }}
- {name: GRPC_PORT, value: {{ include "shopping-cart.port" . | quote }}}
- {name: PEERS, value: {{ include "shopping-cart.componentName" . }}}
- {name: READY_DELAY, value: {{ .root.Values.rollout.readyDelay | quote }}}
{{- include "shopping-cart.env.metrics" .root }}
{{ include "shopping-cart.auth.env" . }}
{{- if eq .component "order" }}
- {name: PRODUCT_TARGET, value: {{ include "shopping-cart.grpcTarget" (dict "root" .root "component" "product") | quote }}}
- {name: ORDER_MAX_STREAMS_PER_CLIENT, value: {{ int .root.Values.gateway.sse.maxStreamsPerClient | quote }}}
{{- end }}
{{- end }}

{{/*
Variables of a migration. Arguments:
  root       the root context
  component  "product" or "order"
*/}}
{{- define "shopping-cart.env.migration" -}}
{{ include "shopping-cart.env.common" .root }}
{{ include "shopping-cart.env.database" . }}
{{- end }}

{{/*
Variables that tell a service, and its migration, where its database is. Arguments:
  root       the root context
  component  "product" or "order"
*/}}
{{- define "shopping-cart.env.database" -}}
{{- $database := (index .root.Values .component).database -}}
- {name: DATABASE_CREDENTIALS, value: /credentials}
{{- $variables := dict "host" "PGHOST" "port" "PGPORT" "username" "PGUSER" "dbname" "PGDATABASE" }}
{{- range $part, $value := include "shopping-cart.database.overrides" $database | fromYaml }}
- {name: {{ get $variables $part }}, value: {{ $value | quote }}}
{{- end }}
{{- with $database.sslmode }}
- {name: PGSSLMODE, value: {{ . }}}
{{- end }}
{{- if $database.ca.secretName }}
- {name: PGSSLROOTCERT, value: /ca/{{ $database.ca.key }}}
{{- else if eq $database.sslmode "verify-full" }}
# The certificate authorities of the image.
- {name: PGSSLROOTCERT, value: system}
{{- end }}
- {name: DATABASE_POOL_SIZE, value: {{ $database.poolSize | quote }}}
- {name: DATABASE_POOL_WAITING, value: {{ $database.poolWaiting | quote }}}
- {name: DATABASE_TIMEOUT, value: {{ $database.timeout | quote }}}
{{- end }}

{{/*
Variables that tell a service where the pooler and the replicas of its database are. A migration needs neither. Arguments:
  root       the root context
  component  "product" or "order"
*/}}
{{- define "shopping-cart.env.database.others" -}}
{{- $variables := list }}
{{- range $name, $server := include "shopping-cart.database.others" (index .root.Values .component).database | fromYaml }}
{{- $address := printf "host=%s port=%v" $server.host $server.port }}
{{- if eq $name "pooler" }}
{{- $variables = append $variables (dict "name" "DATABASE_POOLER_URL" "value" $address) }}
{{- else }}
{{- $variables = append $variables (dict "name" "DATABASE_READ_URL" "value" $address) }}
{{- $variables = append $variables (dict "name" "DATABASE_READ_POOL_SIZE" "value" (toString $server.poolSize)) }}
{{- $variables = append $variables (dict "name" "DATABASE_READ_MAX_LAG" "value" (toString $server.maxLag)) }}
{{- end }}
{{- end }}
{{- with $variables }}
{{- toYaml . }}
{{- end }}
{{- end }}

{{/*
Variables of the sidecar. Arguments: the root context.
*/}}
{{- define "shopping-cart.env.sse" -}}
{{ include "shopping-cart.env.common" . }}
# The preStop hook has already waited for shutdown.delay and shutdown.grace.
- {name: SHUTDOWN_DELAY, value: "0"}
- {name: SHUTDOWN_GRACE, value: "5"}
- {name: HTTP_PORT, value: "8081"}
- {name: GRPC_PORT, value: "50054"}
{{- include "shopping-cart.env.metrics" . }}
- {name: PRODUCT_TARGET, value: {{ include "shopping-cart.grpcTarget" (dict "root" . "component" "product") | quote }}}
- {name: ORDER_TARGET, value: {{ include "shopping-cart.grpcTarget" (dict "root" . "component" "order") | quote }}}
- {name: SSE_MAX_STREAMS, value: {{ int .Values.gateway.sse.maxStreams | quote }}}
- {name: SSE_MAX_STREAMS_PER_CLIENT, value: {{ int .Values.gateway.sse.maxStreamsPerClient | quote }}}
{{ include "shopping-cart.auth.env" (dict "root" . "component" "gateway") }}
{{- end }}

{{/*
Variables of the demo. Arguments: the root context.
*/}}
{{- define "shopping-cart.env.demo" -}}
{{ include "shopping-cart.env.common" . }}
- {name: PRODUCT_TARGET, value: {{ include "shopping-cart.grpcTarget" (dict "root" . "component" "product") | quote }}}
- {name: ORDER_TARGET, value: {{ include "shopping-cart.grpcTarget" (dict "root" . "component" "order") | quote }}}
{{ include "shopping-cart.auth.signerEnv" . }}
{{- end }}

{{/*
Variables of the demo issuer. Arguments: the root context.
*/}}
{{- define "shopping-cart.env.issuer" -}}
{{ include "shopping-cart.env.common" . }}
- {name: LISTEN_HOST, value: {{ include "shopping-cart.envoy.listenHost" . | quote }}}
- {name: HTTP_PORT, value: {{ include "shopping-cart.port" (dict "component" "issuer") | quote }}}
{{ include "shopping-cart.auth.signerEnv" . }}
{{- end }}

{{/*
Variables of a bundled PostgreSQL. Arguments:
  component  "product" or "order", which is also the name of the database
*/}}
{{- define "shopping-cart.env.postgresql" -}}
# The same path for every tag: a server of another major version then refuses the existing data. With the image's own path
# it would start with an empty database.
- {name: PGDATA, value: /var/lib/postgresql/18/docker}
# start.sh sets a random superuser password, because nothing needs it.
- {name: POSTGRES_USER, value: postgres}
- {name: POSTGRES_DB, value: {{ .component }}}
{{- end }}
