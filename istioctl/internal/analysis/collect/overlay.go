package collect

import (
	"reflect"
	"slices"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis"
)

// Overlay puts what a file has over what is there, as applying it would: an object takes the place of that of its name, and what was
// wrong with that is forgotten. A Gateway keeps its status, which says whether it serves.
func Overlay(in *analysis.Input, file Parsed) {
	type key struct {
		kind            reflect.Type
		namespace, name string
	}
	of := func(r *analysis.Resource) key { return key{reflect.TypeOf(r.Object), r.Namespace, r.Name} }
	before := map[key]*analysis.Resource{}
	for _, r := range in.Resources {
		before[of(r)] = r
	}
	gone := map[*analysis.Resource]bool{}
	for _, r := range file.Resources {
		old := before[of(r)]
		if old == nil {
			continue
		}
		gone[old] = true
		if was, ok := old.Object.(*gatewayv1.Gateway); ok {
			if is := r.Object.(*gatewayv1.Gateway); len(is.Status.Conditions) == 0 {
				is.Status = was.Status
			}
		}
	}
	in.Resources = slices.Concat(slices.DeleteFunc(slices.Clone(in.Resources), func(r *analysis.Resource) bool { return gone[r] }), file.Resources)
	in.Problems = slices.Concat(slices.DeleteFunc(slices.Clone(in.Problems), func(p analysis.Problem) bool { return gone[p.Resource] }), file.Problems)
}
