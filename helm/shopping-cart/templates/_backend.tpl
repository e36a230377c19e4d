{{/*
The Deployment of a service with a database. Call with a dict: root, component, port and env.
*/}}
{{- define "shopping-cart.backend" -}}
{{- $values := index .root.Values .component }}
{{- $pod := dict "root" .root "component" .component "values" $values }}
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "shopping-cart.metadata" (list .root .component) | nindent 2 }}
spec:
  {{- if not $values.autoscaling.enabled }}
  replicas: {{ $values.replicas }}
  {{- end }}
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
      containers:
        - name: {{ .component }}
          {{- include "shopping-cart.image" .root | nindent 10 }}
          args: [{{ .component }}]
          env:
            {{- include "shopping-cart.env.server" .root | nindent 12 }}
            {{- include "shopping-cart.env.database" (list .root .component) | nindent 12 }}
            - {name: GRPC_PORT, value: {{ .port | quote }}}
            - {name: PEERS, value: {{ include "shopping-cart.component" (list .root .component) }}}
            - {name: READY_DELAY, value: {{ .root.Values.rollout.readyDelay | quote }}}
            {{- with .env }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
            {{- with $values.extraEnv }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          ports:
            - {name: grpc, containerPort: {{ .port }}}
          startupProbe:
            grpc: {port: {{ .port }}, service: liveness}
            periodSeconds: 1
            timeoutSeconds: 2
            failureThreshold: 60
          # Envoy and gRPC clients go by the services' own health. This one is for disruption budgets and rollouts: where
          # there are other replicas it comes late, when all clients have found this one.
          readinessProbe:
            grpc: {port: {{ .port }}, service: readiness}
            periodSeconds: 3
            timeoutSeconds: 3
          livenessProbe:
            grpc: {port: {{ .port }}, service: liveness}
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 6
          resources:
            {{- toYaml $values.resources | nindent 12 }}
          {{- include "shopping-cart.container.security" .root | nindent 10 }}
          {{- include "shopping-cart.database.mounts" (list .root .component) | nindent 10 }}
      {{- include "shopping-cart.database.volumes" (list .root .component) | nindent 6 }}
{{- end }}

{{/*
The Job that brings a service's schema up to date. Its name has the revision and a hash of what it runs: a Job cannot be
changed, and tools that do not count revisions make a new one when there is something new to run. A hook would not do:
before the install there is no database yet, and after it `--wait` waits for services that wait for their schema.
*/}}
{{- define "shopping-cart.migration" -}}
{{- $component := printf "%s-migrate" .component }}
{{- $pod := include "shopping-cart.migration.pod" (dict "root" .root "component" .component "name" $component) }}
apiVersion: batch/v1
kind: Job
metadata:
  {{- include "shopping-cart.metadata" (list .root $component (printf "%s-r%d-%s" (include "shopping-cart.component" (list .root $component)) (int .root.Release.Revision) ($pod | sha256sum | trunc 5))) | nindent 2 }}
spec:
  backoffLimit: {{ .root.Values.migration.backoffLimit }}
  {{- if not (kindIs "invalid" .root.Values.migration.ttlSecondsAfterFinished) }}
  ttlSecondsAfterFinished: {{ .root.Values.migration.ttlSecondsAfterFinished }}
  {{- end }}
  template:
    {{- $pod | nindent 4 }}
{{- end }}

{{- define "shopping-cart.migration.pod" -}}
{{- $service := index .root.Values .component }}
{{- $pod := dict "root" .root "component" .name "values" $service }}
metadata:
  {{- include "shopping-cart.pod.metadata" $pod | nindent 2 }}
spec:
  {{- include "shopping-cart.pod" (dict "root" .root "component" .component "values" $service) | nindent 2 }}
  restartPolicy: OnFailure
  containers:
    - name: migrate
      {{- include "shopping-cart.image" .root | nindent 6 }}
      args: [migrate, {{ .component }}]
      env:
        {{- include "shopping-cart.env" .root | nindent 8 }}
        {{- include "shopping-cart.env.database" (list .root .component) | nindent 8 }}
        {{- with $service.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      resources:
        {{- toYaml .root.Values.migration.resources | nindent 8 }}
      {{- include "shopping-cart.container.security" .root | nindent 6 }}
      {{- include "shopping-cart.database.mounts" (list .root .component) | nindent 6 }}
  {{- include "shopping-cart.database.volumes" (list .root .component) | nindent 2 }}
{{- end }}
