package l7

import (
	"net/netip"
	"strings"
	"time"

	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"github.com/isthmus-mesh/isthmus/waypoint/l7/normalize"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/strict"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/tracing"
)

// managerOptions are what an HttpConnectionManager does to heads.
type managerOptions struct {
	normalize normalize.Options

	useRemoteAddress, skipAppend bool
	trustedHops                  uint32
	internal                     []netip.Prefix
	generateID, keepExternalID   bool
	idInResponse                 bool
	via                          string
	forwardCert                  hcmv3.HttpConnectionManager_ForwardClientCertDetails
	certDetails                  certDetails
	stripPort                    stripPort
	stripDot                     bool
	scheme                       string // overwrites
	server                       hcmv3.HttpConnectionManager_ServerHeaderTransformation
	acceptHTTP10                 bool
	defaultHost                  string

	suppressEnvoy, respectExpected bool // of the router
}

type stripPort uint8

const (
	stripNone stripPort = iota
	stripMatching
	stripAny
)

// compileManager compiles an HttpConnectionManager of a message that strict.Check has seen.
func compileManager(p *hcmv3.HttpConnectionManager) (*HTTPManager, error) {
	common := p.GetCommonHttpProtocolOptions()
	h := &HTTPManager{
		StatPrefix: p.GetStatPrefix(), ServerName: p.GetServerName(), AccessLogs: p.GetAccessLog(),
		IdleTimeout: duration(common.GetIdleTimeout(), time.Hour), StreamIdleTimeout: duration(p.GetStreamIdleTimeout(), 5*time.Minute),
		RequestTimeout: duration(p.GetRequestTimeout(), 0), RequestHeadersTimeout: duration(p.GetRequestHeadersTimeout(), 0),
		MaxConnectionDuration: duration(common.GetMaxConnectionDuration(), 0), MaxStreamDuration: duration(common.GetMaxStreamDuration(), 0),
		DrainTimeout: duration(p.GetDrainTimeout(), 5*time.Second), DelayedCloseTimeout: duration(p.GetDelayedCloseTimeout(), time.Second),
		MaxRequestsPerConnection: common.GetMaxRequestsPerConnection().GetValue(),
		MaxHeaderBytes:           int(uint32Or(p.GetMaxRequestHeadersKb(), 60)) << 10, MaxHeaders: int(uint32Or(common.GetMaxHeadersCount(), 100)),
		HTTP2:        http2Options(p.GetHttp2ProtocolOptions()),
		AcceptHTTP10: p.GetHttpProtocolOptions().GetAcceptHttp_10(),
		Upgrades:     map[string]bool{},
	}
	if h.ServerName == "" {
		h.ServerName = "envoy"
	}
	switch p.GetCodecType() {
	case hcmv3.HttpConnectionManager_AUTO:
	case hcmv3.HttpConnectionManager_HTTP1:
		h.Codec = CodecHTTP1
	case hcmv3.HttpConnectionManager_HTTP2:
		h.Codec = CodecHTTP2
	default:
		return nil, strict.Errorf("codec_type", "%v is not supported", p.GetCodecType())
	}
	for _, u := range p.GetUpgradeConfigs() {
		h.Upgrades[strings.ToLower(u.GetUpgradeType())] = orTrue(u.GetEnabled())
	}
	if err := h.options(p); err != nil {
		return nil, err
	}
	if err := h.routes(p); err != nil {
		return nil, err
	}
	var err error
	if h.Tracing, err = tracing.Compile(p, false); err != nil {
		return nil, err
	}
	return h, h.compileFilters(p.GetHttpFilters())
}

func (h *HTTPManager) options(p *hcmv3.HttpConnectionManager) error {
	h.opts = managerOptions{
		normalize: normalize.Options{
			Canonical: p.GetNormalizePath().GetValue(), MergeSlashes: p.GetMergeSlashes(),
		},
		useRemoteAddress: p.GetUseRemoteAddress().GetValue(), skipAppend: p.GetSkipXffAppend(), trustedHops: p.GetXffNumTrustedHops(),
		generateID: orTrue(p.GetGenerateRequestId()), keepExternalID: p.GetPreserveExternalRequestId(),
		idInResponse: p.GetAlwaysSetRequestIdInResponse(), via: p.GetVia(), forwardCert: p.GetForwardClientCertDetails(),
		stripDot: p.GetStripTrailingHostDot(), scheme: p.GetSchemeHeaderTransformation().GetSchemeToOverwrite(),
		server: p.GetServerHeaderTransformation(), acceptHTTP10: h.AcceptHTTP10,
		defaultHost: p.GetHttpProtocolOptions().GetDefaultHostForHttp_10(),
	}
	switch p.GetPathWithEscapedSlashesAction() {
	case hcmv3.HttpConnectionManager_REJECT_REQUEST:
		h.opts.normalize.Escaped = normalize.EscapedReject
	case hcmv3.HttpConnectionManager_UNESCAPE_AND_REDIRECT:
		h.opts.normalize.Escaped = normalize.EscapedRedirect
	case hcmv3.HttpConnectionManager_UNESCAPE_AND_FORWARD:
		h.opts.normalize.Escaped = normalize.EscapedForward
	}
	switch {
	case p.GetStripAnyHostPort():
		h.opts.stripPort = stripAny
	case p.GetStripMatchingHostPort():
		h.opts.stripPort = stripMatching
	}
	if p.GetSchemeHeaderTransformation().GetMatchUpstream() {
		return strict.Errorf("scheme_header_transformation.match_upstream", "is not supported")
	}
	details := p.GetSetCurrentClientCertDetails()
	if details.GetChain() {
		return strict.Errorf("set_current_client_cert_details.chain", "is not supported")
	}
	h.opts.certDetails = certDetails{cert: details.GetCert(), subject: details.GetSubject().GetValue(), uri: details.GetUri(), dns: details.GetDns()}
	for i, r := range p.GetInternalAddressConfig().GetCidrRanges() {
		pre, err := prefixOf(r)
		if err != nil {
			return strict.AtIndex(err, "internal_address_config.cidr_ranges", i)
		}
		h.opts.internal = append(h.opts.internal, pre)
	}
	return nil
}

func (h *HTTPManager) routes(p *hcmv3.HttpConnectionManager) error {
	switch k := p.GetRouteSpecifier().(type) {
	case *hcmv3.HttpConnectionManager_Rds:
		if h.RouteConfig = k.Rds.GetRouteConfigName(); h.RouteConfig == "" {
			return strict.Errorf("rds.route_config_name", "is required")
		}
	case *hcmv3.HttpConnectionManager_RouteConfig:
		r, err := compileRoutes(k.RouteConfig)
		if err != nil {
			return strict.At(err, "route_config")
		}
		h.Inline = r
	default:
		return strict.Errorf("route_specifier", "is required")
	}
	return nil
}

// terminates is the cluster that CONNECTs go to when that is all the manager does: it ends HBONE. "" is another manager.
func (h *HTTPManager) terminates() string {
	if h.Inline == nil || !h.HTTP2.AllowConnect {
		return ""
	}
	r := h.Inline.only()
	if r == nil || !r.match.connect || r.forward == nil || !r.forward.upgrades["connect"].tcp {
		return ""
	}
	return r.forward.cluster
}
