package proxy

import "math/rand/v2"

// runtimeRand is the runtime's generator, which needs no lock.
type runtimeRand struct{}

// Uint64 implements l7.Rand.
func (runtimeRand) Uint64() uint64 { return rand.Uint64() }
