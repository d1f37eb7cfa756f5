package l7

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"

	"github.com/isthmus-mesh/isthmus/waypoint/l7/mutate"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/strict"
)

// mutation sets headers of requests, whatever their route.
type mutation struct{ request *mutate.Headers }

func compileMutation(p *mutationv3.HeaderMutation) (*mutation, error) {
	var add []*corev3.HeaderValueOption
	for i, m := range p.GetMutations().GetRequestMutations() {
		if m.GetAppend() == nil {
			return nil, strict.AtIndex(strict.Errorf("", "only append is supported"), "mutations.request_mutations", i)
		}
		add = append(add, m.GetAppend())
	}
	h, err := mutate.CompileHeaders("request", add, nil)
	return &mutation{h}, strict.At(err, "mutations")
}
