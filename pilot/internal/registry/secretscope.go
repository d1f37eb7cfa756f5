package registry

import (
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/isthmus-mesh/isthmus/pkg/xds/server"
)

// SecretType is what gateways present and trust.
const SecretType = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"

// secretPrefix begins the keys of scopes of Secrets; nobodysSecrets is the one in which nothing is ever published.
const (
	secretPrefix   = "secrets/"
	nobodysSecrets = secretPrefix + "nobody"
)

// secretScope is a set of proxies that are given the same credentials: gateways or waypoints that are configured alike, with the same service
// account. Who a proxy is comes from its credentials, never from what it says of itself.
type secretScope struct {
	key     string
	account string
	of      scope
}

// secretScopeOf names the scope of a proxy: one that it shares only with those whose account it has proven, too.
func secretScopeOf(node *corev3.Node, peer server.Peer) string {
	s := nodeScope(node)
	if s.kind != routerScope && s.kind != waypointScope || peer.Namespace == "" || peer.Namespace != s.namespace || peer.ServiceAccount == "" || !plainText(peer.ServiceAccount, "-.") {
		return nobodysSecrets
	}
	return secretPrefix + peer.ServiceAccount + "/" + s.key
}

// parseSecretScope reads a key that secretScopeOf made; false is another one.
func parseSecretScope(key string) (secretScope, bool) {
	rest, ours := strings.CutPrefix(key, secretPrefix)
	account, of, both := strings.Cut(rest, "/")
	if !ours || !both {
		return secretScope{key: key, of: scope{key: "none"}}, ours
	}
	return secretScope{key: key, account: account, of: parseScope(of)}, true
}
