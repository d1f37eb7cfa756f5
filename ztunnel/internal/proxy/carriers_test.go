//go:build !ktls

package proxy

import "github.com/isthmus-mesh/isthmus/pkg/hbone"

// carriers are the transports that the tests run over. With the build tag ktls it is the one whose records the kernel seals.
func carriers() []hbone.Transport { return []hbone.Transport{hbone.Standard, hbone.Records} }
