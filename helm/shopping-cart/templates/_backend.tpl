{{/*
The Deployment of a service with a database. Call with a dict: root, component, port and env.
*/}}
{{- define "shopping-cart.backend" -}}
{{- $values := index .root.Values .component }}
{{- $probes := $values.probes }}
{{- $pod := dict "root" .root "component" .component "values" $values }}
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "shopping-cart.metadata" (dict "root" .root "component" .component "annotations" $values.annotations) | nindent 2 }}
spec:
  {{- include "shopping-cart.replicas" . | nindent 2 }}
  revisionHistoryLimit: 3
  strategy:
    # A pod goes only when its successor is ready: a version that does not start replaces nothing.
    rollingUpdate: {maxSurge: 1, maxUnavailable: 0}
  selector:
    matchLabels:
      {{- include "shopping-cart.selector" (list .root .component) | nindent 6 }}
  template:
    metadata:
      {{- include "shopping-cart.pod.metadata" $pod | nindent 6 }}
    spec:
      {{- include "shopping-cart.pod" $pod | nindent 6 }}
      {{- include "shopping-cart.pod.spread" $pod | nindent 6 }}
      terminationGracePeriodSeconds: {{ add .root.Values.shutdown.delay .root.Values.shutdown.grace 10 }}
      {{- include "shopping-cart.lists" (dict "initContainers" $values.initContainers) | indent 6 }}
      containers:
        - name: {{ .component }}
          {{- include "shopping-cart.image" .root | nindent 10 }}
          args: [{{ .component }}]
          {{- include "shopping-cart.env" (dict "own" (include "shopping-cart.backend.env" .) "values" $values) | nindent 10 }}
          ports:
            - {name: grpc, containerPort: {{ .port }}}
          startupProbe:
            grpc: {port: {{ .port }}, service: liveness}
            {{- toYaml $probes.startup | nindent 12 }}
          # Envoy and gRPC clients go by the services' own health. This one is for disruption budgets and rollouts: where
          # there are other replicas it comes late, when all clients have found this one.
          readinessProbe:
            grpc: {port: {{ .port }}, service: readiness}
            {{- toYaml $probes.readiness | nindent 12 }}
          livenessProbe:
            grpc: {port: {{ .port }}, service: liveness}
            {{- toYaml $probes.liveness | nindent 12 }}
          {{- include "shopping-cart.container" (dict "root" .root "values" $values) | nindent 10 }}
          {{- include "shopping-cart.lists" (dict "volumeMounts" (include "shopping-cart.database.mounts" $values | fromYamlArray)) | indent 10 }}
        {{- with $values.extraContainers }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- include "shopping-cart.lists" (dict "volumes" (include "shopping-cart.database.volumes" (list .root .component) | fromYamlArray)) | indent 6 }}
{{- end }}

{{- define "shopping-cart.backend.env" -}}
{{ include "shopping-cart.env.common" .root }}
- {name: SHUTDOWN_DELAY, value: {{ .root.Values.shutdown.delay | quote }}}
- {name: SHUTDOWN_GRACE, value: {{ .root.Values.shutdown.grace | quote }}}
{{ include "shopping-cart.env.database" (list .root .component) }}
- {name: GRPC_PORT, value: {{ .port | quote }}}
- {name: PEERS, value: {{ include "shopping-cart.component" (list .root .component) }}}
- {name: READY_DELAY, value: {{ .root.Values.rollout.readyDelay | quote }}}
{{- with .env }}
{{ toYaml . }}
{{- end }}
{{- end }}
