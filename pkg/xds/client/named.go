package client

import (
	"maps"
	"slices"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/isthmus-mesh/isthmus/pkg/xds/delta"
)

// Subscribe changes which resources of a named type are subscribed to. It does not wait. A handler may call it from Apply.
// Names that are subscribed already, and removals of others, change nothing. Of what is no longer subscribed to, the handler
// hears no more, save for what is on its way.
func (c *Client) Subscribe(typeURL string, add, remove []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	names := c.names[typeURL]
	if names == nil {
		return // not a named type
	}
	request := &discovery.DeltaDiscoveryRequest{TypeUrl: typeURL}
	for _, name := range remove {
		if _, ok := names[name]; ok && !slices.Contains(add, name) {
			delete(names, name)
			request.ResourceNamesUnsubscribe = append(request.ResourceNamesUnsubscribe, name)
		}
	}
	for _, name := range add {
		if _, ok := names[name]; !ok {
			names[name] = struct{}{}
			request.ResourceNamesSubscribe = append(request.ResourceNamesSubscribe, name)
		}
	}
	if gone := request.GetResourceNamesUnsubscribe(); len(gone) > 0 {
		// A resource that comes back later must be sent anew, so its version is forgotten.
		c.state.Apply(&delta.Delivery{TypeURL: typeURL, Removed: gone}, nil)
	} else if len(request.GetResourceNamesSubscribe()) == 0 {
		return
	}
	if c.online { // otherwise the next connection carries all names
		c.queueLocked(request)
	}
}

// queueLocked hands a request to the session. Callers hold mu.
func (c *Client) queueLocked(request *discovery.DeltaDiscoveryRequest) {
	c.outbox = append(c.outbox, request)
	select {
	case c.send <- struct{}{}:
	default:
	}
}

// openingLocked turns the requests that open a session into those of named types where a type is one: by the names, with the
// versions of what is in use. Without a name there is no request. Callers hold mu.
func (c *Client) openingLocked(requests []*discovery.DeltaDiscoveryRequest) []*discovery.DeltaDiscoveryRequest {
	out := requests[:0]
	for _, r := range requests {
		if names, ok := c.names[r.GetTypeUrl()]; ok {
			if len(names) == 0 {
				continue
			}
			r.ResourceNamesSubscribe, r.ResourceNamesUnsubscribe = slices.Sorted(maps.Keys(names)), nil
			maps.DeleteFunc(r.GetInitialResourceVersions(), func(name, _ string) bool {
				_, wanted := names[name]
				return !wanted
			})
		}
		out = append(out, r)
	}
	return out
}
