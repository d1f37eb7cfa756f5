package kubetest

import (
	"testing"
	"time"

	clienttesting "k8s.io/client-go/testing"

	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"
)

// AwaitWatches returns once a fake client has been asked that often to watch a resource. What is changed before, between the list and
// the watch of a client, that client is never told of: a fake keeps no history.
func AwaitWatches(t testing.TB, client interface{ Actions() []clienttesting.Action }, resource string, times int) {
	t.Helper()
	wait.Until(t, time.Minute, resource+" are watched", func() bool {
		found := 0
		for _, a := range client.Actions() {
			if a.Matches("watch", resource) {
				found++
			}
		}
		return found >= times
	}, nil)
}
