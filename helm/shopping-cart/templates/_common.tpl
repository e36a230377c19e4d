{{/* Small objects that every component has. Call each with (list $ "product"). */}}

{{- define "shopping-cart.headless" -}}
{{- $root := index . 0 -}}
# Headless: Envoy and gRPC clients see every pod, also a new one. Through one address they would stay with the first.
# Every pod from its first moment to its last, ready or not: they ask each for its health, and that is news sooner than DNS.
apiVersion: v1
kind: Service
metadata:
  {{- include "shopping-cart.metadata" (list $root (index . 1)) | nindent 2 }}
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  selector:
    {{- include "shopping-cart.selector" . | nindent 4 }}
  ports:
    - {name: grpc, port: {{ index . 2 }}, targetPort: {{ index . 2 }}, appProtocol: kubernetes.io/h2c}
{{- end }}

{{- define "shopping-cart.serviceaccount" -}}
{{- $values := index (index . 0).Values (index . 1) }}
{{- if not $values.serviceAccount.name -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "shopping-cart.metadata" . | nindent 2 }}
  {{- with $values.serviceAccount.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
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
{{- $root := index . 0 }}
{{- with (index $root.Values (index . 1)).autoscaling }}
{{- if .enabled -}}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  {{- include "shopping-cart.metadata" $ | nindent 2 }}
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: Deployment
    name: {{ include "shopping-cart.component" $ }}
  minReplicas: {{ .minReplicas }}
  maxReplicas: {{ .maxReplicas }}
  metrics:
    - type: Resource
      resource:
        name: cpu
        target: {type: Utilization, averageUtilization: {{ .targetCPUUtilizationPercentage }}}
{{- end }}
{{- end }}
{{- end }}

{{- define "shopping-cart.pdb" -}}
{{- with (index (index . 0).Values (index . 1)).podDisruptionBudget }}
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
      {{- include "shopping-cart.selector" $ | nindent 6 }}
{{- end }}
{{- end }}
{{- end }}
