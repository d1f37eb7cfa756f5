package l7

import (
	"slices"
	"strings"

	rulesv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"

	"github.com/isthmus-mesh/isthmus/waypoint/l7/mutate"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/strict"
)

// mutation changes headers of requests, whatever their route.
type mutation struct{ request *mutate.Headers }

func compileMutation(p *mutationv3.HeaderMutation) (*mutation, error) {
	var add []*corev3.HeaderValueOption
	var remove []string
	for i, m := range p.GetMutations().GetRequestMutations() {
		switch a := m.GetAction().(type) {
		case *rulesv3.HeaderMutation_Append:
			add = append(add, a.Append)
		case *rulesv3.HeaderMutation_Remove:
			// What is removed is removed first here.
			if slices.ContainsFunc(add, func(h *corev3.HeaderValueOption) bool { return strings.EqualFold(h.GetHeader().GetKey(), a.Remove) }) {
				return nil, strict.AtIndex(strict.Errorf("remove", "after the same header was set is not supported"), "mutations.request_mutations", i)
			}
			remove = append(remove, a.Remove)
		default:
			return nil, strict.AtIndex(strict.Errorf("", "only append and remove are supported"), "mutations.request_mutations", i)
		}
	}
	h, err := mutate.CompileHeaders("request", add, remove)
	return &mutation{h}, strict.At(err, "mutations")
}
