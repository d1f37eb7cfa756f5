//go:build !linux

package reach

import (
	"fmt"
	"runtime"
)

// Sandbox returns an error: there are none here.
func Sandbox(name, _ string) (*Mesh, error) {
	return nil, fmt.Errorf("sandbox %s: sandboxes need Linux, and this is %s", name, runtime.GOOS)
}
