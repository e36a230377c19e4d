{{- define "shopping-cart.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "shopping-cart.fullname" -}}
{{- $name := include "shopping-cart.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/*
A component's name, cut where the release's name is long: a Service has 63 characters, and a StatefulSet 52, since
Kubernetes makes labels of it. Call with (list $ "product-db").
*/}}
{{- define "shopping-cart.component" -}}
{{- $suffix := index . 1 }}
{{- printf "%s-%s" (include "shopping-cart.fullname" (index . 0) | trunc (int (sub 51 (len $suffix))) | trimSuffix "-") $suffix }}
{{- end }}

{{/* Never change these: a Deployment's selector is for ever. Call with (list $ "product"). */}}
{{- define "shopping-cart.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "shopping-cart.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "shopping-cart.labels" -}}
{{- $root := index . 0 -}}
{{ include "shopping-cart.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: {{ $root.Chart.Name }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* name, namespace and labels of an object. Call with (list $ "product"), or with a third item where its name differs. */}}
{{- define "shopping-cart.metadata" -}}
name: {{ if gt (len .) 2 }}{{ index . 2 }}{{ else }}{{ include "shopping-cart.component" . }}{{ end }}
namespace: {{ (index . 0).Release.Namespace }}
labels:
  {{- include "shopping-cart.labels" . | nindent 2 }}
{{- end }}

{{/* An image's reference: by digest where there is one. Call with (list image defaultTag). */}}
{{- define "shopping-cart.reference" -}}
{{- $image := index . 0 }}
{{- if $image.digest }}
{{- printf "%s@%s" $image.repository $image.digest }}
{{- else }}
{{- printf "%s:%s" $image.repository (default (index . 1) $image.tag) }}
{{- end }}
{{- end }}

{{- define "shopping-cart.image" -}}
image: {{ include "shopping-cart.reference" (list .Values.image .Chart.AppVersion) | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end }}

{{/* Where gRPC clients inside find a service. Call with (list $ "product" 50052). */}}
{{- define "shopping-cart.target" -}}
dns:///{{ include "shopping-cart.component" . }}:{{ index . 2 }}
{{- end }}

{{/* The Secret with a database's address and credentials. Call with (list $ "product"). */}}
{{- define "shopping-cart.database.secret" -}}
{{- $root := index . 0 }}
{{- default (include "shopping-cart.component" (list $root (printf "%s-db" (index . 1)))) (index $root.Values (index . 1)).database.existingSecret }}
{{- end }}

{{/* A component's ServiceAccount. Call with (list $ "product" .Values.product). */}}
{{- define "shopping-cart.account" -}}
{{- $name := "" }}
{{- with get (index . 2) "serviceAccount" }}
{{- $name = .name }}
{{- end }}
{{- default (include "shopping-cart.component" .) $name }}
{{- end }}
