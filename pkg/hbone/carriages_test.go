//go:build !ktls

package hbone

import "testing"

// carriages are what the tests run over. With the build tag ktls it is what the kernel seals.
func carriages() []carriage {
	return []carriage{
		{name: "TCP", plain: true, client: Standard, server: Standard},
		{name: "crypto/tls", client: Standard, server: Standard},
		{name: "records", client: Records, server: Records},
	}
}

func expectKernel(testing.TB, Transport, Secured) {}
