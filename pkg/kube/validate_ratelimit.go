package kube

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/isthmus-mesh/isthmus/pkg/kube/policyapi"
)

// Bounds of what a proxy has to keep for a policy.
const (
	maxLimits    = 8
	maxKeyTypes  = 3
	maxOverrides = 64
	maxKeys      = 100_000
	maxRequests  = 1_000_000_000
)

func (c *checker) rateLimitPolicy(o *policyapi.RateLimitPolicy) {
	spec := &o.Spec
	switch n := len(spec.TargetRefs); {
	case n == 0:
		c.bad("spec.targetRefs", "required: name a Gateway, a Service, a ServiceEntry, an HTTPRoute or a GRPCRoute")
	case n > 16:
		c.bad("spec.targetRefs", "at most 16 are allowed")
	}
	for i, ref := range spec.TargetRefs {
		c.rateLimitTarget(fmt.Sprintf("spec.targetRefs[%d]", i), ref)
	}
	if spec.Mode != "" {
		c.oneOf("spec.mode", string(spec.Mode), string(policyapi.Enforce), string(policyapi.DryRun))
	}
	if spec.MaxKeys > maxKeys {
		c.bad("spec.maxKeys", "%d is too much: use at most %d", spec.MaxKeys, maxKeys)
	}
	switch n := len(spec.Limits); {
	case n == 0:
		c.bad("spec.limits", "required: without a limit the policy does nothing")
	case n > maxLimits:
		c.bad("spec.limits", "at most %d are allowed", maxLimits)
	}
	names := map[string]bool{}
	for i := range spec.Limits {
		field := fmt.Sprintf("spec.limits[%d]", i)
		c.limit(field, &spec.Limits[i])
		if name := spec.Limits[i].Name; name != "" {
			c.label(field+".name", "name of a limit", name)
			if names[name] {
				c.bad(field+".name", "%q is used twice", name)
			}
			names[name] = true
		}
	}
	c.rateLimitResponse(&spec.Response)
}

func (c *checker) rateLimitTarget(field string, ref policyapi.TargetRef) {
	if problems := validation.IsDNS1123Subdomain(ref.Name); len(problems) > 0 {
		c.bad(field+".name", "%q is not the name of an object: %s", ref.Name, problems[0])
	}
	route := false
	switch id := ref.Group + "/" + ref.Kind; id {
	case "/Service", "core/Service", "networking.istio.io/ServiceEntry", "gateway.networking.k8s.io/Gateway":
	case "gateway.networking.k8s.io/HTTPRoute", "gateway.networking.k8s.io/GRPCRoute":
		route = true
	default:
		c.bad(field+".kind", "%q cannot be a target: use Gateway, HTTPRoute or GRPCRoute of gateway.networking.k8s.io, Service of the core group, or ServiceEntry of networking.istio.io", id)
		return
	}
	if ref.SectionName != "" && !route {
		c.bad(field+".sectionName", "only rules of an HTTPRoute or a GRPCRoute can be named: remove it, or name the route")
	}
}

func (c *checker) limit(field string, l *policyapi.Limit) {
	c.requestRate(field, l.Rate)
	c.keys(field+".by", l.By)
	c.keys(field+".fairShare", l.FairShare)
	if len(l.By) > 0 && len(l.FairShare) > 0 {
		c.bad(field+".fairShare", "cannot be combined with by: make two limits of them")
	}
	if len(l.Overrides) > maxOverrides {
		c.bad(field+".overrides", "at most %d are allowed", maxOverrides)
	}
	if len(l.Overrides) > 0 && len(l.By) == 0 {
		c.bad(field+".overrides", "are for values of by, which is empty")
	}
	seen := map[string]bool{}
	for i, o := range l.Overrides {
		at := fmt.Sprintf("%s.overrides[%d]", field, i)
		c.requestRate(at, o.Rate)
		if len(o.Values) != len(l.By) {
			c.bad(at+".values", "has %d values, by has %d keys: give one value for each key", len(o.Values), len(l.By))
		}
		for j, v := range o.Values {
			if v == "" || len(v) > 1024 || !utf8.ValidString(v) {
				c.bad(fmt.Sprintf("%s.values[%d]", at, j), "a value has 1 to 1024 characters")
			}
		}
		if key := strings.Join(o.Values, "\x00"); seen[key] {
			c.bad(at+".values", "these values have a rate already")
		} else {
			seen[key] = true
		}
	}
}

func (c *checker) requestRate(field string, r policyapi.Rate) {
	if r.Requests < 1 || r.Requests > maxRequests {
		c.bad(field+".requests", "%d is not a number of requests: use 1 to %d", r.Requests, maxRequests)
	}
	if r.Burst > maxRequests {
		c.bad(field+".burst", "%d is too much: use at most %d", r.Burst, maxRequests)
	}
	c.oneOf(field+".per", string(r.Per), policyapi.Units()...)
}

func (c *checker) keys(field string, keys []policyapi.Key) {
	if len(keys) > maxKeyTypes {
		c.bad(field, "at most %d keys are allowed", maxKeyTypes)
	}
	for i, k := range keys {
		at := fmt.Sprintf("%s[%d]", field, i)
		c.oneOf(at+".type", string(k.Type), policyapi.KeyTypes()...)
		switch {
		case k.Type.Named() && k.Name == "":
			c.bad(at+".name", "required for type %s", k.Type)
		case k.Type == policyapi.Header:
			c.headerName(at+".name", k.Name)
		case k.Type == policyapi.Claim && (len(k.Name) > 256 || !utf8.ValidString(k.Name)):
			c.bad(at+".name", "the name of a claim has 1 to 256 characters")
		case !k.Type.Named() && k.Name != "":
			c.bad(at+".name", "only keys of the types Header and Claim have a name")
		}
		if slices.ContainsFunc(keys[:i], func(before policyapi.Key) bool {
			return before.Type == k.Type && strings.EqualFold(before.Name, k.Name)
		}) {
			c.bad(at, "the same key stands there twice")
		}
	}
}

func (c *checker) rateLimitResponse(r *policyapi.Response) {
	if s := r.Status; s != 0 && !refusal(s) {
		c.bad("spec.response.status", "%d is not the status of a refusal: use a registered one from 400 to 511, such as 429 or 503", s)
	}
	if r.GRPCStatus != "" {
		c.oneOf("spec.response.grpcStatus", string(r.GRPCStatus), string(policyapi.ResourceExhausted), string(policyapi.Unavailable))
	}
	if len(r.Headers) > 16 {
		c.bad("spec.response.headers", "at most 16 are allowed")
	}
	for i, h := range r.Headers {
		at := fmt.Sprintf("spec.response.headers[%d]", i)
		c.headerName(at+".name", h.Name)
		switch strings.ToLower(h.Name) {
		case "content-length", "transfer-encoding", "connection", "upgrade", "keep-alive", "host":
			c.bad(at+".name", "%s frames the message and cannot be set", h.Name)
		}
		if strings.HasPrefix(h.Name, ":") {
			c.bad(at+".name", "%q is not the name of a header", h.Name)
		}
		if strings.ContainsAny(h.Value, "\r\n\x00") || !utf8.ValidString(h.Value) || len(h.Value) > 4096 {
			c.bad(at+".value", "a value is one line of at most 4096 characters")
		}
	}
}

// refusal is whether a status is one that proxies answer refusals with: the registered ones.
func refusal(status uint32) bool {
	switch {
	case status >= 400 && status <= 417, status >= 421 && status <= 426, status == 428, status == 429, status == 431, status >= 500 && status <= 508, status == 510, status == 511:
		return true
	}
	return false
}
