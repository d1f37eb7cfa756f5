package gateway

import (
	"math/rand/v2"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"
)

// TestRandom translates objects of random bytes; with -envoy, a real Envoy has to take what comes out.
func TestRandom(t *testing.T) {
	rounds := 300
	if *envoy != "" {
		rounds = 3000
	}
	random := rand.New(rand.NewPCG(1, 2))
	var batch []*routev3.RouteConfiguration
	judge := func() {
		if *envoy != "" && len(batch) > 0 {
			validateByEnvoy(t, *envoy, batch)
		}
		batch = nil
	}
	for range rounds {
		data := make([]byte, 500+random.IntN(20000))
		for i := range data {
			data[i] = byte(random.Uint32())
		}
		for _, config := range translateAll(data) {
			if err := config.ValidateAll(); err != nil {
				t.Fatal(err)
			}
			if _, err := proto.Marshal(config); err != nil {
				t.Fatal(err)
			}
			batch = append(batch, config)
		}
		if len(batch) > 400 {
			judge()
		}
		if t.Failed() {
			break
		}
	}
	judge()
}
