package gateway

import (
	"slices"
	"strconv"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/route"
)

type parentReference = gatewayv1.ParentReference

// hostTable holds the virtual hosts of a port by their domain.
type hostTable struct {
	port  string
	hosts map[string]*route.VirtualHost
}

func newHostTable(port uint32) *hostTable {
	return &hostTable{port: strconv.FormatUint(uint64(port), 10), hosts: map[string]*route.VirtualHost{}}
}

// get finds or makes the virtual host of a domain.
func (t *hostTable) get(domain string) *route.VirtualHost {
	key := strings.ToLower(domain)
	h := t.hosts[key]
	if h == nil {
		h = &route.VirtualHost{Name: domain + ":" + t.port, Domains: []string{domain}}
		t.hosts[key] = h
	}
	return h
}

// reserve makes the virtual host of a listener even without routes, when there are others that would take its requests.
func (t *hostTable) reserve(domain string, on []*listener) {
	if domain != "*" && len(on) > 1 {
		t.get(domain)
	}
}

// all gives the virtual hosts by their domain, wildcards last.
func (t *hostTable) all() []*route.VirtualHost {
	out := make([]*route.VirtualHost, 0, len(t.hosts))
	for _, h := range t.hosts {
		out = append(out, h)
	}
	slices.SortFunc(out, func(a, b *route.VirtualHost) int {
		x, y := a.Domains[0], b.Domains[0]
		if xw, yw := strings.HasPrefix(x, "*"), strings.HasPrefix(y, "*"); xw != yw {
			if yw {
				return -1
			}
			return 1
		}
		return strings.Compare(x, y)
	})
	return out
}
