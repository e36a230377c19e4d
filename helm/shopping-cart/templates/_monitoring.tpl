{{/*
The port on which a container serves its metrics, if it does. Arguments:
  container  "product", "order", "sse" or "envoy"
*/}}
{{- define "shopping-cart.metrics.port" -}}
{{- ternary "9465" "9464" (eq .container "envoy") }}
{{- end }}

{{/*
The path of the metrics on that port. Arguments:
  container  a container, as above
*/}}
{{- define "shopping-cart.metrics.path" -}}
{{- ternary "/stats/prometheus" "/metrics" (eq .container "envoy") }}
{{- end }}

{{/*
The name of that port, which is unique in a pod. Arguments:
  container  a container, as above
*/}}
{{- define "shopping-cart.metrics.portName" -}}
{{- ternary "metrics-envoy" "metrics" (eq .container "envoy") }}
{{- end }}

{{/*
That port as an entry of a container's `ports`. Begins with a line break, and is empty without metrics. Arguments:
  root       the root context
  container  a container, as above
*/}}
{{- define "shopping-cart.metrics.containerPort" }}
{{- if .root.Values.telemetry.metrics.enabled }}
- {name: {{ include "shopping-cart.metrics.portName" . }}, containerPort: {{ include "shopping-cart.metrics.port" . }}}
{{- end }}
{{- end }}

{{/*
The variables of that port. Begins with a line break, and is empty without metrics. gRPC listens on all families by itself, and
HTTP does not. Arguments: the root context.
*/}}
{{- define "shopping-cart.env.metrics" }}
{{- if .Values.telemetry.metrics.enabled }}
{{- if eq (include "shopping-cart.envoy.listenHost" .) "::" }}
- {name: LISTEN_HOST, value: "::"}
{{- end }}
- {name: METRICS_PORT, value: {{ include "shopping-cart.metrics.port" (dict "container" "") | quote }}}
{{- end }}
{{- end }}

{{/*
The annotations by which a Prometheus without an operator finds a pod, as a YAML mapping. They can name one port only. In the
gateway's pods that is the sidecar's: a Prometheus that finds Envoy's port as well goes by the names of ports. Arguments: the
root context.
*/}}
{{- define "shopping-cart.metrics.annotations" -}}
{{- with .Values.telemetry.metrics }}
{{- if and .enabled .scrapeAnnotations.enabled }}
prometheus.io/scrape: "true"
prometheus.io/port: {{ include "shopping-cart.metrics.port" (dict "container" "") | quote }}
prometheus.io/path: {{ include "shopping-cart.metrics.path" (dict "container" "") }}
{{- end }}
{{- end }}
{{- end }}

{{/*
The ingress rule for those who scrape. Begins with a line break, and is empty if nobody may. Arguments:
  root        the root context
  containers  the containers of the pod that serve metrics
*/}}
{{- define "shopping-cart.networkPolicy.metricsRule" }}
{{- with .root.Values.telemetry.metrics }}
{{- if and .enabled .from }}
- from:
    {{- toYaml .from | nindent 4 }}
  ports:
    {{- range $.containers }}
    - {port: {{ include "shopping-cart.metrics.port" (dict "container" .) }}, protocol: TCP}
    {{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/*
A file of files/monitoring for this release: NAMESPACE and RELEASE are replaced by its own. What looks like a template in it
is Prometheus', and stays. Arguments:
  root  the root context
  path  the file's path
*/}}
{{- define "shopping-cart.monitoring.file" -}}
{{- .root.Files.Get .path | replace "NAMESPACE" .root.Release.Namespace | replace "RELEASE" .root.Release.Name | trim }}
{{- end }}

{{/*
Fails if values of `telemetry.metrics` contradict others. Arguments: the root context.
*/}}
{{- define "shopping-cart.checkMetrics" -}}
{{- $metrics := .Values.telemetry.metrics }}
{{- if and $metrics.otlp (not .Values.telemetry.endpoint) }}
{{- fail "telemetry.metrics.otlp needs telemetry.endpoint, to which metrics are sent" }}
{{- end }}
{{- if and $metrics.rules.enabled (not $metrics.enabled) }}
{{- fail "telemetry.metrics.rules.enabled needs telemetry.metrics.enabled: the alerts are about what is scraped, and fire without it" }}
{{- end }}
{{- if not $metrics.enabled }}
{{- range $key := list "scrapeAnnotations" "podMonitor" }}
{{- if (get $metrics $key).enabled }}
{{- fail (printf "telemetry.metrics.%s.enabled has no effect with telemetry.metrics.enabled false: there are no ports to scrape" $key) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
