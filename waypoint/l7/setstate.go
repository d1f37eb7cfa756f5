package l7

import (
	filterstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	setstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/set_filter_state/v3"
	netstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"

	"github.com/isthmus-mesh/isthmus/waypoint/l7/exchange"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/mutate"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/strict"
)

// connectAuthority is where Istio's control plane has the authority of a tunnel kept under a name of its own.
const connectAuthority = "io.istio.connect_authority"

// stateEntry sets one object of the filter state.
type stateEntry struct {
	key       string
	value     mutate.Format
	skipEmpty bool
}

// compileState compiles set_filter_state. What goes on with the connection inside a tunnel is known there without it (exchange.Conn):
// it must be what is expected.
func compileState(p *setstatev3.Config) ([]stateEntry, error) {
	var out []stateEntry
	for i, v := range p.GetOnRequestHeaders() {
		e, err := compileStateEntry(v)
		if err != nil {
			return nil, strict.AtIndex(err, "on_request_headers", i)
		}
		out = append(out, e)
	}
	return out, nil
}

func compileStateEntry(p *filterstatev3.FilterStateValue) (stateEntry, error) {
	e := stateEntry{key: p.GetObjectKey(), skipEmpty: p.GetSkipIfEmpty()}
	src := p.GetFormatString().GetTextFormatSource()
	format := src.GetInlineString()
	if format == "" {
		format = p.GetFormatString().GetTextFormat() //nolint:staticcheck // deprecated, and still sent
	}
	f, err := mutate.CompileFormat(format)
	if err != nil {
		return e, strict.At(err, "format_string")
	}
	e.value = f
	want := ""
	switch e.key {
	case exchange.OriginalLocal:
		switch want = "%REQ(:AUTHORITY)%"; format {
		case "%DOWNSTREAM_LOCAL_ADDRESS%", "%FILTER_STATE(" + exchange.OriginalLocal + ":PLAIN)%":
			want = format // inside the tunnel it is the same
		}
	case connectAuthority:
		want = "%REQ(:AUTHORITY)%"
	case exchange.OriginalRemote:
		want = "%DOWNSTREAM_REMOTE_ADDRESS%"
	case exchange.PeerPrincipal:
		want = "%DOWNSTREAM_PEER_URI_SAN%"
	case exchange.LocalPrincipal:
		want = "%DOWNSTREAM_LOCAL_URI_SAN%"
	default:
		if p.GetFactoryKey() != "" && p.GetFactoryKey() != "envoy.string" {
			return e, strict.Errorf("factory_key", "%q is not supported", p.GetFactoryKey())
		}
	}
	if want != "" && format != want {
		return e, strict.Errorf("format_string", "%q: %s must be %s", format, e.key, want)
	}
	return e, nil
}

// compileNetState accepts a network filter that passes on what the connection knows anyway: where it goes to.
func compileNetState(p *netstatev3.Config) error {
	for i, v := range p.GetOnNewConnection() {
		e, err := compileStateEntry(v)
		if err == nil && e.key != exchange.OriginalLocal {
			err = strict.Errorf("object_key", "%q is not supported here", e.key)
		}
		if err != nil {
			return strict.AtIndex(err, "on_new_connection", i)
		}
	}
	return nil
}
