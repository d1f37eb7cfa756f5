package why

import (
	"strings"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
)

// lookForHidden tells of ServiceEntries for a name that the client may not know, by meshConfig.serviceEntryVisibility: to it the name is
// one that nothing in the mesh has.
func (w *walk) lookForHidden() {
	if w.to == nil || !w.to.external {
		return
	}
	for _, se := range all[*networkingv1.ServiceEntry](w.m, "ServiceEntry") {
		for _, host := range se.Spec.GetHosts() {
			if !covers(host, w.to.host) {
				continue
			}
			const setting = "meshConfig.serviceEntryVisibility"
			ref, name := w.m.World.Of(se, "spec.hosts"), se.Namespace+"/"+se.Name
			switch w.m.Mesh.Settings().Visibility.Of(se.Namespace, w.m.namespace(se.Namespace)) {
			case ambient.VisibleToNamespace:
				w.warn(ref, "connect from namespace "+se.Namespace+", or have a policy of "+setting+" make its entries PUBLIC",
					"ServiceEntry %s is not used: only clients of namespace %s may know it (%s)", name, se.Namespace, setting)
			case ambient.VisibleToNone:
				w.warn(ref, "have a policy of "+setting+" make the entries of namespace "+se.Namespace+" NAMESPACE or PUBLIC",
					"ServiceEntry %s is not used: nobody may know it (%s)", name, setting)
			case ambient.VisibleToAll:
			}
		}
	}
}

// covers is whether a host of a ServiceEntry, which may be a wildcard, is a name.
func covers(host, name string) bool {
	if suffix, wild := strings.CutPrefix(host, "*"); wild {
		return strings.HasSuffix(strings.ToLower(name), strings.ToLower(suffix))
	}
	return strings.EqualFold(host, name)
}
