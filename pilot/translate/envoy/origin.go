package envoy

import (
	"maps"
	"strings"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/isthmus-mesh/isthmus/pilot/translate/route"
)

// originField is where a chain's metadata has the object that it comes from.
const originField = "origin"

// naming puts the objects that chains come from into them, where that is asked for. What metrics are told is shared among chains, and
// is not changed.
func (m Mesh) naming(chains []*listenerv3.FilterChain, origins []route.Origin) []*listenerv3.FilterChain {
	if !m.Origins {
		return chains
	}
	for i, c := range chains {
		if origins[i].Kind == "" {
			continue
		}
		own := &structpb.Struct{Fields: map[string]*structpb.Value{}}
		maps.Copy(own.Fields, c.GetMetadata().GetFilterMetadata()[MeshMetadata].GetFields())
		own.Fields[originField] = text(origins[i].Kind + "/" + origins[i].Namespace + "/" + origins[i].Name)
		c.Metadata = wrap(own)
	}
	return chains
}

// OriginOf reads what naming has put into a chain's metadata: the kind, namespace and name of the object.
func OriginOf(own *structpb.Struct) (kind, namespace, name string, ok bool) {
	parts := strings.Split(own.GetFields()[originField].GetStringValue(), "/")
	if len(parts) != 3 {
		return "", "", "", false
	}
	return parts[0], parts[1], parts[2], true
}
