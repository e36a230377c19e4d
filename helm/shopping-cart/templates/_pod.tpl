{{/*
The metadata of a pod. Arguments:
  root         the root context
  component    a component
  values       values with podAnnotations and podLabels
  overrides    values whose podAnnotations and podLabels take precedence, optional
  annotations  annotations of the chart, optional
  stable       if true, a new version of the chart alone does not replace the pod; optional
*/}}
{{- define "shopping-cart.pod.metadata" -}}
{{- $overrides := default (dict "podAnnotations" dict "podLabels" dict) .overrides }}
{{- with merge (dict) $overrides.podAnnotations .values.podAnnotations (default dict .annotations) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
labels:
  {{- $labels := merge (dict) $overrides.podLabels .values.podLabels }}
  {{- include "shopping-cart.labels" (dict "root" .root "component" .component "labels" $labels "stable" .stable) | nindent 2 }}
{{- end }}

{{/*
The part of a pod's spec that all pods share. Arguments:
  root       the root context
  component  the component whose ServiceAccount the pod uses
  values     the component's values
*/}}
{{- define "shopping-cart.pod.common" -}}
serviceAccountName: {{ include "shopping-cart.serviceAccountName" . }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with include "shopping-cart.securityContext" (dict "root" .root "context" .values.podSecurityContext) }}
securityContext:
  {{- . | nindent 2 }}
{{- end }}
{{- with include "shopping-cart.imagePullSecrets" .root }}
imagePullSecrets:
  {{- . | nindent 2 }}
{{- end }}
{{- range $key := list "priorityClassName" "runtimeClassName" "dnsPolicy" "dnsConfig" "hostAliases" "nodeSelector" "tolerations" "affinity" }}
{{- with get $.values $key }}
{{ dict $key . | toYaml }}
{{- end }}
{{- end }}
{{- end }}

{{/*
Spreads the pods of a Deployment over zones and nodes. Arguments:
  root       the root context
  component  a component
  values     the component's values
*/}}
{{- define "shopping-cart.pod.topologySpread" }}
topologySpreadConstraints:
{{- if .values.topologySpreadConstraints }}
  {{- toYaml .values.topologySpreadConstraints | nindent 2 }}
{{- else }}
{{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "shopping-cart.selectorLabels" $ | nindent 8 }}
    matchLabelKeys: [pod-template-hash]
{{- end }}
{{- end }}
{{- end }}

{{/*
A security context from values, without user and group IDs if the cluster assigns them (adaptSecurityContext). Arguments:
  root     the root context
  context  the security context
*/}}
{{- define "shopping-cart.securityContext" -}}
{{- $adapt := .root.Values.adaptSecurityContext }}
{{- $context := .context }}
{{- if or (eq $adapt "force") (and (eq $adapt "auto") (.root.Capabilities.APIVersions.Has "security.openshift.io/v1")) }}
{{- $context = omit $context "runAsUser" "runAsGroup" "fsGroup" }}
{{- end }}
{{- with $context }}
{{- toYaml . }}
{{- end }}
{{- end }}

{{/*
Resources and security context of a container. Arguments:
  root    the root context
  values  values with resources and containerSecurityContext
*/}}
{{- define "shopping-cart.container.common" -}}
{{- with .values.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with include "shopping-cart.securityContext" (dict "root" .root "context" .values.containerSecurityContext) }}
securityContext:
  {{- . | nindent 2 }}
{{- end }}
{{- end }}

{{/*
Keys whose value is a list, such as volumes. Leaves out empty lists. Arguments: a dict of keys and lists.
*/}}
{{- define "shopping-cart.nonEmptyLists" }}
{{- range $key, $list := . }}
{{- with $list }}
{{ dict $key . | toYaml }}
{{- end }}
{{- end }}
{{- end }}

{{/*
The replicas of a Deployment. With autoscaling the number is left out, and the autoscaler owns it. When autoscaling is
switched on, Helm would remove the number that it applied before, and Kubernetes would scale to 1. So that number stays until
the autoscaler has changed it. Arguments:
  root       the root context
  component  a component
*/}}
{{- define "shopping-cart.replicas" -}}
{{- $values := index .root.Values .component }}
{{- if $values.autoscaling.enabled }}
{{- $live := lookup "apps/v1" "Deployment" .root.Release.Namespace (include "shopping-cart.componentName" .) }}
{{- include "shopping-cart.replicas.applied" $live }}
{{- else -}}
replicas: {{ $values.replicas }}
{{- end }}
{{- end }}

{{/*
The replicas of a live Deployment if only server-side apply owns them. (Helm 3 patches on the client: it would have to keep
the number forever.) Arguments: the Deployment, which may be empty.
*/}}
{{- define "shopping-cart.replicas.applied" -}}
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
