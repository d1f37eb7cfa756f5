package credentials

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/kube/kubetest"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/leak"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"

	authv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/isthmus-mesh/isthmus/pilot/internal/registry"
	"github.com/isthmus-mesh/isthmus/pilot/translate/credential"
)

func TestMain(m *testing.M) { os.Exit(leak.Goroutines(m)) }

// board keeps what was found.
type board struct {
	mu      sync.Mutex
	lookups map[string]registry.Lookup
	readers map[string]registry.Reader
}

func (b *board) SetLookups(found []registry.Lookup, forget ...credential.Source) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, l := range found {
		b.lookups[l.Key()] = l
	}
	for _, s := range forget {
		delete(b.lookups, s.Key())
	}
}

func (b *board) SetReaders(found []registry.Reader, forget ...registry.Read) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range found {
		b.readers[r.Key()] = r
	}
	for _, r := range forget {
		delete(b.readers, r.Key())
	}
}

func (b *board) eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	wait.Until(t, time.Minute, what, func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return is()
	}, func() string {
		b.mu.Lock()
		defer b.mu.Unlock()
		return fmt.Sprintf("%+v %+v", b.lookups, b.readers)
	})
}

func TestSecretsAreReadOneByOneAndRightsAreAsked(t *testing.T) {
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "one"}, Data: map[string][]byte{"k": []byte("1")}}
	api := fake.NewClientset(secret, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "two"}, Data: map[string][]byte{"k": []byte("2")}})
	var mu sync.Mutex
	allowed := map[string]bool{"system:serviceaccount:a:gw get one": true, "system:serviceaccount:a:lister list ": true}
	api.PrependReactor("create", "subjectaccessreviews", func(action clienttesting.Action) (bool, runtime.Object, error) {
		review := action.(clienttesting.CreateAction).GetObject().(*authv1.SubjectAccessReview)
		mu.Lock()
		defer mu.Unlock()
		review.Status.Allowed = allowed[review.Spec.User+" "+review.Spec.ResourceAttributes.Verb+" "+review.Spec.ResourceAttributes.Name]
		return true, review, nil
	})
	b := &board{lookups: map[string]registry.Lookup{}, readers: map[string]registry.Reader{}}
	c := New(Config{API: api, Target: b, Log: slog.New(slog.DiscardHandler), Review: 20 * time.Millisecond})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = c.Run(ctx) }()
	defer func() { stop(); <-done }()

	one, missing := credential.Source{Kind: credential.Secret, Namespace: "a", Name: "one"}, credential.Source{Kind: credential.Secret, Namespace: "a", Name: "missing"}
	gw, lister, other := registry.Read{Namespace: "a", Account: "gw", Secret: "one"}, registry.Read{Namespace: "a", Account: "lister", Secret: "one"}, registry.Read{Namespace: "a", Account: "other", Secret: "one"}
	c.Want(registry.Wanted{
		Objects: map[credential.Source]struct{}{one: {}, missing: {}}, Reads: map[registry.Read]struct{}{gw: {}, lister: {}, other: {}},
	})
	b.eventually(t, "looked up", func() bool {
		l, ok := b.lookups[missing.Key()]
		return string(b.lookups[one.Key()].Data["k"]) == "1" && ok && l.Data == nil && len(b.lookups) == 2
	})
	b.eventually(t, "asked", func() bool {
		o, ok := b.readers[other.Key()]
		return b.readers[gw.Key()].May && b.readers[lister.Key()].May && ok && !o.May
	})

	kubetest.AwaitWatches(t, api, "secrets", 2)
	secret.Data["k"] = []byte("new")
	if _, err := api.CoreV1().Secrets("a").Update(ctx, secret, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	b.eventually(t, "followed", func() bool { return string(b.lookups[one.Key()].Data["k"]) == "new" })
	mu.Lock()
	clear(allowed)
	mu.Unlock()
	b.eventually(t, "asked again", func() bool { return !b.readers[gw.Key()].May })

	c.Want(registry.Wanted{})
	b.eventually(t, "forgotten", func() bool { return len(b.lookups) == 0 && len(b.readers) == 0 })
	for _, action := range api.Actions() {
		if list, ok := action.(clienttesting.ListAction); ok && list.GetListRestrictions().Fields.Empty() {
			t.Errorf("all Secrets were listed: %v", action)
		}
	}
}
