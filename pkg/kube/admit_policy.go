package kube

import (
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	extensionsapi "istio.io/api/extensions/v1alpha1"
	networkingapi "istio.io/api/networking/v1alpha3"
	networkingbeta "istio.io/api/networking/v1beta1"
	securityapi "istio.io/api/security/v1beta1"
	telemetryapi "istio.io/api/telemetry/v1alpha1"
)

func (c *checker) protocols(field string, ports []*networkingapi.ServicePort) {
	for i, p := range ports {
		if p.GetProtocol() != "" {
			c.protocol(fmt.Sprintf("%s[%d].protocol", field, i), p.GetProtocol())
		}
	}
}

func (c *checker) mutualModes(spec *securityapi.PeerAuthentication) {
	check := func(field string, m *securityapi.PeerAuthentication_MutualTLS) {
		if _, known := securityapi.PeerAuthentication_MutualTLS_Mode_name[int32(m.GetMode())]; !known {
			c.bad(field, "%d is not a mode: use STRICT, PERMISSIVE or DISABLE", m.GetMode())
		}
	}
	check("spec.mtls.mode", spec.GetMtls())
	for port, m := range spec.GetPortLevelMtls() {
		check(fmt.Sprintf("spec.portLevelMtls.%d.mode", port), m)
	}
}

func (c *checker) requestAuthentication(spec *securityapi.RequestAuthentication) {
	c.targets(spec.GetSelector(), spec.GetTargetRef(), spec.GetTargetRefs())
	c.selector(spec.GetSelector())
	for i, r := range spec.GetJwtRules() {
		field := fmt.Sprintf("spec.jwtRules[%d]", i)
		c.jwtRule(field, r)
	}
}

func (c *checker) jwtRule(field string, r *securityapi.JWTRule) {
	if r.GetIssuer() == "" {
		c.bad(field+".issuer", "required: who signs the tokens")
	}
	for i, a := range r.GetAudiences() {
		c.notEmpty(fmt.Sprintf("%s.audiences[%d]", field, i), a)
	}
	if r.GetJwks() != "" && r.GetJwksUri() != "" {
		c.bad(field+".jwks", "only one of jwks and jwksUri can be set")
	}
	if r.GetJwksUri() != "" {
		c.webAddress(field+".jwksUri", r.GetJwksUri())
	}
	if text := r.GetJwks(); text != "" {
		var keys struct {
			Keys []json.RawMessage `json:"keys"`
		}
		if err := json.Unmarshal([]byte(text), &keys); err != nil || keys.Keys == nil {
			c.bad(field+".jwks", "is not a JSON Web Key Set: want an object with \"keys\"")
		}
	}
	for i, h := range r.GetFromHeaders() {
		c.headerName(fmt.Sprintf("%s.fromHeaders[%d].name", field, i), h.GetName())
	}
	for i, p := range r.GetFromParams() {
		c.notEmpty(fmt.Sprintf("%s.fromParams[%d]", field, i), p)
	}
	for i, p := range r.GetFromCookies() {
		c.notEmpty(fmt.Sprintf("%s.fromCookies[%d]", field, i), p)
	}
	for i, o := range r.GetOutputClaimToHeaders() {
		at := fmt.Sprintf("%s.outputClaimToHeaders[%d]", field, i)
		c.headerName(at+".header", o.GetHeader())
		c.notEmpty(at+".claim", o.GetClaim())
	}
	if h := r.GetOutputPayloadToHeader(); h != "" {
		c.headerName(field+".outputPayloadToHeader", h)
	}
	c.duration(field+".timeout", r.GetTimeout(), false)
}

func (c *checker) webAddress(field, text string) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		c.bad(field, "%q is not an address such as https://issuer.example.org/keys", text)
	}
}

func (c *checker) telemetry(spec *telemetryapi.Telemetry) {
	c.targets(spec.GetSelector(), spec.GetTargetRef(), spec.GetTargetRefs())
	c.selector(spec.GetSelector())
	for i, t := range spec.GetTracing() {
		field := fmt.Sprintf("spec.tracing[%d]", i)
		if t.GetRandomSamplingPercentage() != nil {
			c.percent(field+".randomSamplingPercentage", t.GetRandomSamplingPercentage().GetValue())
		}
		if len(t.GetProviders()) > 1 {
			c.bad(field+".providers", "one provider is possible for traces")
		}
		c.providers(field, t.GetProviders())
		for _, name := range sortedKeys(t.GetCustomTags()) {
			c.customTag(field+".customTags", name, t.GetCustomTags()[name])
		}
	}
	for i, m := range spec.GetMetrics() {
		field := fmt.Sprintf("spec.metrics[%d]", i)
		c.providers(field, m.GetProviders())
		for j, o := range m.GetOverrides() {
			c.override(fmt.Sprintf("%s.overrides[%d]", field, j), o)
		}
		c.duration(field+".reportingInterval", m.GetReportingInterval(), false)
	}
	for i, l := range spec.GetAccessLogging() {
		field := fmt.Sprintf("spec.accessLogging[%d]", i)
		c.providers(field, l.GetProviders())
		if l.GetFilter() != nil && l.GetFilter().GetExpression() == "" {
			c.bad(field+".filter.expression", "required: an expression such as response.code >= 500")
		} else if l.GetFilter() != nil {
			c.expression(field+".filter.expression", l.GetFilter().GetExpression())
		}
	}
}

func (c *checker) providers(field string, list []*telemetryapi.ProviderRef) {
	for i, p := range list {
		if p.GetName() == "" {
			c.bad(fmt.Sprintf("%s.providers[%d].name", field, i), "required: the name of one of meshConfig.extensionProviders")
		}
	}
}

func (c *checker) customTag(field, name string, tag *telemetryapi.Tracing_CustomTag) {
	if name == "" {
		c.bad(field, "a tag needs a name")
	}
	field += "." + name
	switch t := tag.GetType().(type) {
	case nil:
		c.bad(field, "set one of literal, environment, header and formatter")
	case *telemetryapi.Tracing_CustomTag_Literal:
		c.notEmpty(field+".literal.value", t.Literal.GetValue())
	case *telemetryapi.Tracing_CustomTag_Environment:
		c.notEmpty(field+".environment.name", t.Environment.GetName())
	case *telemetryapi.Tracing_CustomTag_Header:
		c.headerName(field+".header.name", t.Header.GetName())
	}
}

func (c *checker) override(field string, o *telemetryapi.MetricsOverrides) {
	if m, ok := o.GetMatch().GetMetricMatch().(*telemetryapi.MetricSelector_CustomMetric); ok {
		c.notEmpty(field+".match.customMetric", m.CustomMetric)
	}
	for _, name := range sortedKeys(o.GetTagOverrides()) {
		t := o.GetTagOverrides()[name]
		at := field + ".tagOverrides." + name
		switch {
		case t.GetOperation() == telemetryapi.MetricsOverrides_TagOverride_REMOVE && t.GetValue() != "":
			c.bad(at+".value", "a tag that is removed has none")
		case t.GetOperation() == telemetryapi.MetricsOverrides_TagOverride_UPSERT && t.GetValue() == "":
			c.bad(at+".value", "required: what the tag says")
		case t.GetOperation() == telemetryapi.MetricsOverrides_TagOverride_UPSERT:
			c.expression(at+".value", t.GetValue())
		}
	}
}

var sha256Text = regexp.MustCompile(`^[0-9a-f]{64}$`)

func (c *checker) wasmPlugin(spec *extensionsapi.WasmPlugin) {
	c.targets(spec.GetSelector(), spec.GetTargetRef(), spec.GetTargetRefs())
	c.selector(spec.GetSelector())
	if spec.GetUrl() == "" {
		c.bad("spec.url", "required: where the module is, such as oci://registry.example.org/plugin:v1")
	} else if scheme, _, ok := strings.Cut(spec.GetUrl(), "://"); ok {
		c.oneOf("spec.url", scheme, "http", "https", "oci", "file")
	}
	if sum := spec.GetSha256(); sum != "" && !sha256Text.MatchString(sum) {
		c.bad("spec.sha256", "%q is not 64 hexadecimal digits in lower case", sum)
	}
	seen := map[string]bool{}
	for i, e := range spec.GetVmConfig().GetEnv() {
		field := fmt.Sprintf("spec.vmConfig.env[%d]", i)
		c.notEmpty(field+".name", e.GetName())
		if seen[e.GetName()] {
			c.bad(field+".name", "%q is used twice", e.GetName())
		}
		seen[e.GetName()] = true
		if e.GetValueFrom() == extensionsapi.EnvValueSource_HOST && e.GetValue() != "" {
			c.bad(field+".value", "is taken from the host: remove it, or valueFrom")
		}
	}
	for i, m := range spec.GetMatch() {
		for j, p := range m.GetPorts() {
			c.port(fmt.Sprintf("spec.match[%d].ports[%d].number", i, j), p.GetNumber())
		}
	}
}

func (c *checker) envoyFilter(spec *networkingapi.EnvoyFilter) {
	if spec.GetWorkloadSelector() != nil && len(spec.GetTargetRefs()) > 0 {
		c.bad("spec", "only one of workloadSelector and targetRefs can be set")
	}
	c.plainSelector("spec.workloadSelector.labels", spec.GetWorkloadSelector().GetLabels())
	for i, r := range spec.GetTargetRefs() {
		c.target(fmt.Sprintf("spec.targetRefs[%d]", i), r)
	}
	if len(spec.GetConfigPatches()) == 0 {
		c.warn("spec.configPatches", "there are none: the object has no effect")
	}
	for i, p := range spec.GetConfigPatches() {
		field := fmt.Sprintf("spec.configPatches[%d]", i)
		if p == nil {
			c.bad(field, "an empty entry is not allowed")
			continue
		}
		if p.GetApplyTo() == networkingapi.EnvoyFilter_INVALID {
			c.bad(field+".applyTo", "required: what is patched, such as HTTP_FILTER")
		}
		switch {
		case p.GetPatch() == nil:
			c.bad(field+".patch", "required")
		case p.GetPatch().GetOperation() == networkingapi.EnvoyFilter_Patch_INVALID:
			c.bad(field+".patch.operation", "required: MERGE, ADD, REMOVE, INSERT_BEFORE, INSERT_AFTER, INSERT_FIRST or REPLACE")
		case p.GetPatch().GetOperation() != networkingapi.EnvoyFilter_Patch_REMOVE && p.GetPatch().GetValue() == nil:
			c.bad(field+".patch.value", "required for operation %s", p.GetPatch().GetOperation())
		}
		if m := p.GetMatch().GetProxy().GetProxyVersion(); m != "" {
			c.regex(field+".match.proxy.proxyVersion", m)
		}
	}
}

func (c *checker) proxyConfig(spec *networkingbeta.ProxyConfig) {
	c.selector(spec.GetSelector())
	c.count("spec.concurrency", spec.GetConcurrency().GetValue())
	for _, name := range sortedKeys(spec.GetEnvironmentVariables()) {
		if name == "" || strings.ContainsAny(name, "= ") {
			c.bad("spec.environmentVariables", "%q is not the name of a variable", name)
		}
	}
	if kind := spec.GetImage().GetImageType(); kind != "" && !slices.Contains([]string{"default", "debug", "distroless"}, kind) {
		c.bad("spec.image.imageType", "%q is none of default, debug, distroless", kind)
	}
}

func (c *checker) workloadGroup(spec *networkingapi.WorkloadGroup) {
	if spec.GetTemplate() == nil {
		c.bad("spec.template", "required: what the WorkloadEntries have in common")
	}
	c.labels("spec.metadata.labels", spec.GetMetadata().GetLabels())
	c.labels("spec.template.labels", spec.GetTemplate().GetLabels())
	for _, name := range sortedKeys(spec.GetTemplate().GetPorts()) {
		c.port("spec.template.ports."+name, spec.GetTemplate().GetPorts()[name])
	}
	p := spec.GetProbe()
	if p == nil {
		return
	}
	for name, v := range map[string]int32{
		"initialDelaySeconds": p.GetInitialDelaySeconds(), "timeoutSeconds": p.GetTimeoutSeconds(), "periodSeconds": p.GetPeriodSeconds(),
		"successThreshold": p.GetSuccessThreshold(), "failureThreshold": p.GetFailureThreshold(),
	} {
		c.count("spec.probe."+name, v)
	}
	switch m := p.GetHealthCheckMethod().(type) {
	case nil:
		c.bad("spec.probe", "asks nothing: set one of httpGet, tcpSocket, exec and grpc")
	case *networkingapi.ReadinessProbe_HttpGet:
		c.port("spec.probe.httpGet.port", m.HttpGet.GetPort())
		if s := m.HttpGet.GetScheme(); s != "" {
			c.oneOf("spec.probe.httpGet.scheme", s, "HTTP", "HTTPS")
		}
	case *networkingapi.ReadinessProbe_TcpSocket:
		c.port("spec.probe.tcpSocket.port", m.TcpSocket.GetPort())
	case *networkingapi.ReadinessProbe_Exec:
		if len(m.Exec.GetCommand()) == 0 {
			c.bad("spec.probe.exec.command", "required")
		}
	}
}
