{{/* Small objects that every component has. Call each with a dict: root and component. */}}

{{- define "shopping-cart.headless" -}}
# Headless: Envoy and gRPC clients see every pod, also a new one. Through one address they would stay with the first.
# Every pod from its first moment to its last, ready or not: they ask each for its health, and that is news sooner than DNS.
apiVersion: v1
kind: Service
metadata:
  {{- include "shopping-cart.metadata" . | nindent 2 }}
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  {{- include "shopping-cart.families" .root | indent 2 }}
  selector:
    {{- include "shopping-cart.selector" (list .root .component) | nindent 4 }}
  ports:
    - {name: grpc, port: {{ .port }}, targetPort: {{ .port }}, appProtocol: kubernetes.io/h2c}
{{- end }}

{{/* The address families of a Service. Begins with a line break. */}}
{{- define "shopping-cart.families" }}
{{- with .Values.ipFamilyPolicy }}
ipFamilyPolicy: {{ . }}
{{- end }}
{{- with .Values.ipFamilies }}
ipFamilies:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "shopping-cart.serviceaccount" -}}
{{- $account := (index .root.Values .component).serviceAccount }}
{{- if not $account.name -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "shopping-cart.metadata" (dict "root" .root "component" .component "annotations" $account.annotations) | nindent 2 }}
automountServiceAccountToken: false
{{- end }}
{{- end }}

{{- define "shopping-cart.plainaccount" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "shopping-cart.metadata" . | nindent 2 }}
automountServiceAccountToken: false
{{- end }}

{{- define "shopping-cart.hpa" -}}
{{- with (index .root.Values .component).autoscaling }}
{{- if .enabled -}}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  {{- include "shopping-cart.metadata" $ | nindent 2 }}
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: Deployment
    name: {{ include "shopping-cart.component" (list $.root $.component) }}
  minReplicas: {{ .minReplicas }}
  maxReplicas: {{ .maxReplicas }}
  {{- with .behavior }}
  behavior:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if or .targetCPUUtilizationPercentage .targetMemoryUtilizationPercentage .metrics }}
  metrics:
    {{- with .targetCPUUtilizationPercentage }}
    - type: Resource
      resource:
        name: cpu
        target: {type: Utilization, averageUtilization: {{ . }}}
    {{- end }}
    {{- with .targetMemoryUtilizationPercentage }}
    - type: Resource
      resource:
        name: memory
        target: {type: Utilization, averageUtilization: {{ . }}}
    {{- end }}
    {{- with .metrics }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/*
How many pods a Deployment has, or nothing where an autoscaler counts them. Switched on, it finds the number that Helm has
applied: the first upgrade without it would make that 1. So it stays, as it is, until the autoscaler has changed it and owns
it. Call with a dict: root and component.
*/}}
{{- define "shopping-cart.replicas" -}}
{{- $values := index .root.Values .component }}
{{- if $values.autoscaling.enabled }}
{{- $live := lookup "apps/v1" "Deployment" .root.Release.Namespace (include "shopping-cart.component" (list .root .component)) }}
{{- include "shopping-cart.replicas.kept" $live }}
{{- else -}}
replicas: {{ $values.replicas }}
{{- end }}
{{- end }}

{{/*
The number in a Deployment that is there, if nobody owns it but who applied it on the server. (Where Helm patches it from here,
as Helm 3 does, a number that is kept once would have to be kept for ever.) Call with the Deployment, which may be empty.
*/}}
{{- define "shopping-cart.replicas.kept" -}}
{{- $applied := false }}
{{- $others := false }}
{{- range (.metadata).managedFields }}
{{- if hasKey (dig "fieldsV1" "f:spec" dict .) "f:replicas" }}
{{- $applied = or $applied (eq .operation "Apply") }}
{{- $others = or $others (ne .operation "Apply") }}
{{- end }}
{{- end }}
{{- if and $applied (not $others) -}}
replicas: {{ .spec.replicas }}
{{- end }}
{{- end }}

{{- define "shopping-cart.pdb" -}}
{{- with (index .root.Values .component).podDisruptionBudget }}
{{- if .enabled -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "shopping-cart.metadata" $ | nindent 2 }}
spec:
  maxUnavailable: {{ .maxUnavailable }}
  # A pod that is not ready may always go: it would only block a node's drain.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "shopping-cart.selector" (list $.root $.component) | nindent 6 }}
{{- end }}
{{- end }}
{{- end }}
