package ca_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc/metadata"
	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	ktesting "k8s.io/client-go/testing"

	"github.com/isthmus-mesh/isthmus/pilot/internal/ca"
)

func calling(token, cluster string) context.Context {
	md := metadata.Pairs("authorization", "Bearer "+token)
	if cluster != "" {
		md.Set("clusterid", cluster)
	}
	return metadata.NewIncomingContext(context.Background(), md)
}

func TestTokenReview(t *testing.T) {
	const token = "secret-token"
	good := authenticationv1.TokenReviewStatus{
		Authenticated: true, Audiences: []string{"istio-ca"},
		User: authenticationv1.UserInfo{
			Username: "system:serviceaccount:istio-system:ztunnel", Groups: []string{"system:serviceaccounts", "system:authenticated"},
			Extra: map[string]authenticationv1.ExtraValue{
				"authentication.kubernetes.io/pod-name": {"ztunnel-1"}, "authentication.kubernetes.io/pod-uid": {"uid-1"}, "authentication.kubernetes.io/node-name": {"node-1"},
			},
		},
	}
	for name, tt := range map[string]struct {
		edit    func(*authenticationv1.TokenReviewStatus)
		err     error
		cluster string
		want    string // part of the error
	}{
		"accepted":               {},
		"of this cluster":        {cluster: "Kubernetes"},
		"of another cluster":     {cluster: "west", want: `"west" is not known`},
		"not accepted":           {edit: func(s *authenticationv1.TokenReviewStatus) { s.Authenticated, s.Error = false, "expired" }, want: "expired"},
		"for others":             {edit: func(s *authenticationv1.TokenReviewStatus) { s.Audiences = []string{"api"} }, want: "audiences"},
		"for no audience":        {edit: func(s *authenticationv1.TokenReviewStatus) { s.Audiences = nil }, want: "audiences"},
		"a user":                 {edit: func(s *authenticationv1.TokenReviewStatus) { s.User.Groups = []string{"system:authenticated"} }, want: "no service account"},
		"a name like one":        {edit: func(s *authenticationv1.TokenReviewStatus) { s.User.Username = "system:serviceaccount:a:b:c" }, want: "no service account"},
		"the API server is away": {err: errors.New("connection refused"), want: "ask the API server"},
	} {
		t.Run(name, func(t *testing.T) {
			status := *good.DeepCopy()
			if tt.edit != nil {
				tt.edit(&status)
			}
			api := fake.NewClientset()
			api.PrependReactor("create", "tokenreviews", func(a ktesting.Action) (bool, runtime.Object, error) {
				r := a.(ktesting.CreateAction).GetObject().(*authenticationv1.TokenReview)
				if r.Spec.Token != token || len(r.Spec.Audiences) != 1 || r.Spec.Audiences[0] != "istio-ca" {
					t.Errorf("asked %+v", r.Spec)
				}
				r = r.DeepCopy()
				r.Status = status
				return true, r, tt.err
			})
			caller, err := ca.NewTokenReview(api.AuthenticationV1().TokenReviews(), "Kubernetes", []string{"istio-ca"}, nil).Authenticate(calling(token, tt.cluster))
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), token) {
					t.Errorf("error %v, want one with %q", err, tt.want)
				}
				return
			}
			want := ca.Caller{Namespace: "istio-system", ServiceAccount: "ztunnel", PodName: "ztunnel-1", PodUID: "uid-1", Node: "node-1", ClusterID: tt.cluster}
			if err != nil || caller != want {
				t.Errorf("caller %+v, %v", caller, err)
			}
		})
	}
}

func TestOneQuestionForAllThatWait(t *testing.T) {
	var asked atomic.Int32
	refuse := atomic.Bool{}
	api := fake.NewClientset()
	api.PrependReactor("create", "tokenreviews", func(a ktesting.Action) (bool, runtime.Object, error) {
		asked.Add(1)
		r := a.(ktesting.CreateAction).GetObject().(*authenticationv1.TokenReview).DeepCopy()
		r.Status = authenticationv1.TokenReviewStatus{Authenticated: !refuse.Load(), Audiences: []string{"istio-ca"}, User: authenticationv1.UserInfo{
			Username: "system:serviceaccount:a:b", Groups: []string{"system:serviceaccounts"},
		}}
		return true, r, nil
	})
	reviews := ca.NewTokenReview(api.AuthenticationV1().TokenReviews(), "Kubernetes", []string{"istio-ca"}, nil)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := reviews.Authenticate(calling("one", "")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times for one token", n)
	}
	// Refusals are not remembered.
	refuse.Store(true)
	for range 2 {
		if _, err := reviews.Authenticate(calling("two", "")); err == nil {
			t.Error("accepted")
		}
	}
	if n := asked.Load(); n != 3 {
		t.Errorf("asked %d times, want 3", n)
	}
}

func TestAPodThatHasMovedIsRefused(t *testing.T) {
	n := &ca.NodeAuthorizer{ClusterID: "Kubernetes", Trusted: []string{"istio-system/ztunnel"}, Pods: cluster{}, TrustDomains: func() []string { return []string{"cluster.local"} }}
	caller := ca.Caller{Namespace: "istio-system", ServiceAccount: "ztunnel", PodName: "ztunnel-1", PodUID: "uid-1", ClusterID: "Kubernetes", Node: "node-1"}
	if _, err := n.Authorize(caller, web.String()); err != nil {
		t.Error(err)
	}
	caller.Node = "node-2"
	if _, err := n.Authorize(caller, web.String()); err == nil || !strings.Contains(err.Error(), "node-2") {
		t.Errorf("a token of another node: %v", err)
	}
}
