package gateway

import "github.com/isthmus-mesh/isthmus/pilot/translate/route"

// serviceRoutes are the routes of the Gateway API whose parent is the service; found is false when there is none.
func (t *translation) serviceRoutes(in WaypointInput) (routes []route.Route, found bool) {
	return nil, false
}
