{{- define "levee.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "levee.labels" -}}
app.kubernetes.io/name: levee
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- /* What never changes while the release lives: selectors are immutable. */ -}}
{{- define "levee.selector" -}}
app.kubernetes.io/name: levee
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- /* Refuses what would not work, with what to do. */ -}}
{{- define "levee.check" -}}
{{- $_ := required "secret.existingName is not set: create the Secret with the hash key once (values.yaml has the command) and name it" .Values.secret.existingName }}
{{- if not .Values.agent.interfaces }}
{{- fail "agent.interfaces is empty: name the interfaces that carry the XDP program, such as [{name: eth0}]" }}
{{- end }}
{{- if and .Values.agent.config.controlPlane (ne .Values.agent.nodes "workers") }}
{{- fail "agent.config.controlPlane is set while agent.nodes is `all`: after a power cut the kubelets need the control-plane VIP to start this DaemonSet. Run the agent of the control-plane nodes as static pod (lbctl sample static-pod) or systemd unit and set agent.nodes: workers" }}
{{- end }}
{{- if and .Values.monitoring.podMonitor (has .Values.agent.http.address (list "127.0.0.1" "::1")) }}
{{- fail "monitoring.podMonitor is set, but the agents answer on their own node only: set agent.http.address to 0.0.0.0 or \"::\"" }}
{{- end }}
{{- end }}

{{- define "levee.kubernetes" -}}
kubernetes:
  loadBalancerClass: {{ .Values.class.name }}
  defaultClass: {{ .Values.class.default }}
  reserved: {{ toJson .Values.reserved }}
{{- end }}
