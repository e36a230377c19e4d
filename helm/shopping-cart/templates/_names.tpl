{{/*
The name of the chart. Arguments: the root context.
*/}}
{{- define "shopping-cart.name" -}}
{{- default .Chart.Name .Values.nameOverride }}
{{- end }}

{{/*
The prefix of all object names. Arguments: the root context.
*/}}
{{- define "shopping-cart.fullname" -}}
{{- $name := include "shopping-cart.name" . }}
{{- $fullname := .Values.fullnameOverride }}
{{- if not $fullname }}
{{- $fullname = ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) }}
{{- end }}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $fullname) }}
{{- fail (printf "%q cannot be the prefix of a Service's name, which starts with a letter and contains letters, digits and hyphens only: set fullnameOverride" $fullname) }}
{{- end }}
{{- $fullname }}
{{- end }}

{{/*
The name of a component's objects. A Service's name has at most 63 characters. A StatefulSet's has at most 52, because
Kubernetes adds a hash and makes a label of it. A longer name is cut and gets a hash of the whole, so that it stays unique.
Arguments:
  root       the root context
  component  a component, as in "product-db"
*/}}
{{- define "shopping-cart.componentName" -}}
{{- $fullname := include "shopping-cart.fullname" .root }}
{{- $max := int (sub 51 (len .component)) }}
{{- if gt (len $fullname) $max }}
{{- $fullname = printf "%s-%s" ($fullname | trunc (int (sub $max 6)) | trimSuffix "-") ($fullname | sha256sum | trunc 5) }}
{{- end }}
{{- printf "%s-%s" $fullname .component }}
{{- end }}

{{/*
The port that a component listens on. Arguments:
  component  a component, as in "product"
*/}}
{{- define "shopping-cart.port" -}}
{{- get (dict "product" "50052" "order" "50053" "gateway" "8080" "issuer" "8082" "product-db" "5432" "order-db" "5432") .component }}
{{- end }}

{{/*
The address of a service for gRPC clients inside the cluster. Arguments:
  root       the root context
  component  "product" or "order"
*/}}
{{- define "shopping-cart.grpcTarget" -}}
dns:///{{ include "shopping-cart.componentName" . }}:{{ include "shopping-cart.port" . }}
{{- end }}

{{/*
The labels that select a component's pods. Selectors are immutable. Do not change these labels. Arguments:
  root       the root context
  component  a component
*/}}
{{- define "shopping-cart.selectorLabels" -}}
app.kubernetes.io/name: {{ include "shopping-cart.name" .root | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/*
All labels of an object, each key once. Arguments:
  root       the root context
  component  a component
  labels     labels from values, optional
  stable     if true, leaves out labels that change with the chart's version; optional
*/}}
{{- define "shopping-cart.labels" -}}
{{- $own := include "shopping-cart.selectorLabels" . | fromYaml }}
{{- if not .stable }}
{{- $chart := .root.Chart }}
{{- $own = merge $own (dict
  "app.kubernetes.io/version" $chart.AppVersion
  "app.kubernetes.io/part-of" $chart.Name
  "app.kubernetes.io/managed-by" .root.Release.Service
  "helm.sh/chart" (printf "%s-%s" $chart.Name $chart.Version | replace "+" "_" | trunc 63)
) }}
{{- end }}
{{- merge $own (default dict .labels) .root.Values.commonLabels | toYaml }}
{{- end }}

{{/*
The metadata of an object. Arguments:
  root         the root context
  component    a component
  name         the object's name; optional, the component's name by default
  labels       labels from values, optional
  annotations  annotations from values, optional
*/}}
{{- define "shopping-cart.metadata" -}}
name: {{ .name | default (include "shopping-cart.componentName" .) }}
namespace: {{ .root.Release.Namespace | quote }}
labels:
  {{- include "shopping-cart.labels" (pick . "root" "component" "labels") | nindent 2 }}
{{- with merge (dict) (default dict .annotations) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/*
The name of a component's ServiceAccount. Arguments:
  root       the root context
  component  a component
  values     the component's values
*/}}
{{- define "shopping-cart.serviceAccountName" -}}
{{- $name := "" }}
{{- with get .values "serviceAccount" }}
{{- $name = .name }}
{{- end }}
{{- default (include "shopping-cart.componentName" .) $name }}
{{- end }}

{{/*
The address families of a Service. Begins with a line break, and is empty for the cluster's default. Arguments: the root
context.
*/}}
{{- define "shopping-cart.ipFamilies" }}
{{- with .Values.ipFamilyPolicy }}
ipFamilyPolicy: {{ . }}
{{- end }}
{{- with .Values.ipFamilies }}
ipFamilies:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
