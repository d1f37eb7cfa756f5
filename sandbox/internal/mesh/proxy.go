package mesh

import (
	"github.com/isthmus-mesh/isthmus/pilot/translate/deploy"
)

const (
	// StatusPort is where a proxy answers whether it is ready.
	StatusPort = 15021
	// RootCertConfigMap holds the mesh's root certificates, in every namespace.
	RootCertConfigMap = "istio-ca-root-cert"
	// RootCertKey is the file among it.
	RootCertKey = "root-cert.pem"

	controlPlane = "istiod.istio-system.svc:15012"
)

// ProxyValues are what the installation in the sandbox says of the proxies that are deployed.
func ProxyValues() deploy.Values { return deploy.Values{Discovery: controlPlane} }
