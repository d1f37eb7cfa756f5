// Package attributes shows records to expressions, under Envoy's names.
package attributes

import (
	"net/netip"
	"strings"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/peers"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/proxy"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// Of are the attributes of a record. They are made when an expression asks for them.
type Of struct{ Record *proxy.Record }

// Attribute implements expr.Attributes.
func (o Of) Attribute(root string) (any, bool) {
	r := o.Record
	switch root {
	case "request":
		return request(r), r.Kind == proxy.KindRequest
	case "response":
		return response(r), true
	case "connection":
		return connection(r), true
	case "source":
		return address(source(r)), true
	case "destination":
		return address(conn(r).Destination), true
	case "upstream":
		return upstream(r), true
	case "xds":
		return xds(r), true
	case "metadata":
		return metadata(r), true
	case "filter_state":
		return map[string]any{"downstream_peer": peer(peers.Downstream(r)), "upstream_peer": peer(peers.Upstream(r))}, true
	case "downstream_peer":
		return peer(peers.Downstream(r)), true
	case "upstream_peer":
		return peer(peers.Upstream(r)), true
	}
	return nil, false
}

func conn(r *proxy.Record) *l7.Conn {
	if r.Conn == nil {
		return &l7.Conn{}
	}
	return r.Conn
}

func source(r *proxy.Record) netip.AddrPort {
	if r.Request != nil && r.Request.Remote.IsValid() {
		return r.Request.Remote
	}
	return conn(r).Source
}

func address(a netip.AddrPort) map[string]any {
	if !a.IsValid() {
		return map[string]any{}
	}
	return map[string]any{"address": a.String(), "port": int64(a.Port())}
}

func headers(h *httpmsg.Header) map[string]string {
	out := map[string]string{}
	if h == nil {
		return out
	}
	for _, f := range h.Fields() {
		if have, ok := out[f.Key]; ok {
			out[f.Key] = have + "," + f.Value
		} else {
			out[f.Key] = f.Value
		}
	}
	return out
}

func request(r *proxy.Record) map[string]any {
	sent := headers(r.Header)
	path, host, scheme := r.Path, r.Authority, r.Scheme
	if r.Request != nil && r.Request.Head != nil {
		path, host, scheme = r.Request.Head.Path, r.Request.Head.Authority, r.Request.Head.Scheme
	}
	sent[":method"], sent[":path"], sent[":authority"] = r.Method, path, host
	out := map[string]any{
		"path": path, "host": host, "scheme": scheme, "method": r.Method, "headers": sent, "time": r.Start, "protocol": r.Protocol.String(),
		"duration": r.Duration, "size": int64(r.BytesReceived), "total_size": int64(r.BytesReceived), //nolint:gosec // bytes of one body
	}
	out["url_path"], out["query"], _ = strings.Cut(path, "?")
	if r.Request != nil && r.Request.ID != "" {
		out["id"] = r.Request.ID
	}
	for attribute, name := range map[string]string{"referer": "referer", "useragent": "user-agent"} {
		if v, ok := sent[name]; ok {
			out[attribute] = v
		}
	}
	return out
}

func response(r *proxy.Record) map[string]any {
	out := map[string]any{
		"size": int64(r.BytesSent), "total_size": int64(r.BytesSent), "flags": int64(flags(r.Flags)), //nolint:gosec // bytes of one body
		"headers": headers(r.Response), "trailers": headers(r.Trailer),
	}
	if r.Kind != proxy.KindRequest {
		return out
	}
	out["code"] = int64(r.Status)
	if r.Details != "" {
		out["code_details"] = r.Details
	}
	if r.GRPC && r.GRPCStatus >= 0 {
		out["grpc_status"] = int64(r.GRPCStatus)
	}
	if r.TimeToFirstByte > 0 {
		out["backend_latency"] = r.TimeToFirstByte - r.RequestDone
	}
	return out
}

func connection(r *proxy.Record) map[string]any {
	c := conn(r)
	out := map[string]any{"mtls": c.Identity != "" || c.Peer != nil, "id": int64(r.ConnectionID)} //nolint:gosec // counts from 1
	set := func(key, value string) {
		if value != "" {
			out[key] = value
		}
	}
	set("requested_server_name", c.SNI)
	set("uri_san_peer_certificate", c.Identity)
	set("uri_san_local_certificate", c.LocalIdentity)
	set("termination_details", r.Termination)
	if c.Peer != nil {
		set("subject_peer_certificate", c.Peer.Subject)
		set("sha256_peer_certificate_digest", c.Peer.Hash)
		if len(c.Peer.DNS) > 0 {
			set("dns_san_peer_certificate", c.Peer.DNS[0])
		}
	}
	return out
}

func upstream(r *proxy.Record) map[string]any {
	out := map[string]any{"request_attempt_count": int64(r.Attempts)}
	if r.Endpoint != nil && r.Endpoint.Address.IsValid() {
		out["address"], out["port"] = r.UpstreamHost, int64(r.Endpoint.Address.Port())
	}
	if r.UpstreamLocal.IsValid() {
		out["local_address"] = r.UpstreamLocal.String()
	}
	if r.UpstreamIdentity != "" {
		out["uri_san_peer_certificate"] = r.UpstreamIdentity
	}
	if r.UpstreamFailure != "" {
		out["transport_failure_reason"] = r.UpstreamFailure
	}
	return out
}

func xds(r *proxy.Record) map[string]any {
	out := map[string]any{"route_name": r.RouteName}
	if r.ClusterName != "" {
		out["cluster_name"] = r.ClusterName
	}
	if r.Chain != nil {
		out["filter_chain_name"] = r.Chain.Name
	}
	if r.Decision != nil {
		out["virtual_host_name"] = r.Decision.VirtualHost
	}
	return out
}

func metadata(r *proxy.Record) map[string]any {
	all := map[string]any{}
	if r.Request != nil {
		for _, filter := range []string{"envoy.filters.http.jwt_authn", "envoy.filters.http.rbac", "envoy.filters.http.ext_authz", "istio_authn"} {
			if m := r.Request.Metadata(filter); m != nil {
				all[filter] = m
			}
		}
	}
	return map[string]any{"filter_metadata": all}
}

func peer(p peers.Peer) map[string]any {
	out := map[string]any{}
	for _, field := range peers.Fields() {
		if v := p.Field(field); v != "" {
			out[field] = v
		}
	}
	return out
}

// flags are Envoy's bits.
func flags(f l7.Flags) (out uint64) {
	for _, b := range []struct {
		flag l7.Flags
		bit  uint64
	}{
		{l7.FlagNoHealthyUpstream, 0x2},
		{l7.FlagUpstreamRequestTimeout, 0x4},
		{l7.FlagLocalReset, 0x8},
		{l7.FlagUpstreamRemoteReset, 0x10},
		{l7.FlagUpstreamConnectionFailure, 0x20},
		{l7.FlagUpstreamConnectionTermination, 0x40},
		{l7.FlagUpstreamOverflow, 0x80},
		{l7.FlagNoRouteFound, 0x100},
		{l7.FlagDelayInjected, 0x200},
		{l7.FlagFaultInjected, 0x400},
		{l7.FlagRateLimited, 0x800},
		{l7.FlagUnauthorized, 0x1000},
		{l7.FlagDownstreamTermination, 0x4000},
		{l7.FlagUpstreamRetryLimit, 0x8000},
		{l7.FlagStreamIdleTimeout, 0x10000},
		{l7.FlagInvalidHeader, 0x20000},
		{l7.FlagDownstreamProtocolError, 0x40000},
		{l7.FlagUpstreamMaxDuration, 0x80000},
		{l7.FlagDurationTimeout, 0x400000},
		{l7.FlagUpstreamProtocolError, 0x800000},
		{l7.FlagNoCluster, 0x1000000},
		{l7.FlagOverload, 0x2000000},
		{l7.FlagDownstreamRemoteReset, 0x10000000},
	} {
		if f&b.flag != 0 {
			out |= b.bit
		}
	}
	return out
}
