package credentials

import (
	"context"
	"fmt"
	"time"

	authv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/pilot/internal/registry"
)

// reviewTimeout bounds one question.
const reviewTimeout = 10 * time.Second

// review asks whether a service account may get a Secret, or list all of its namespace.
func (c *Controller) review(ctx context.Context, r registry.Read) registry.Reader {
	out := registry.Reader{Read: r}
	ctx, cancel := context.WithTimeout(ctx, reviewTimeout)
	defer cancel()
	for _, how := range []authv1.ResourceAttributes{{Verb: "get", Name: r.Secret}, {Verb: "list"}} {
		how.Namespace, how.Version, how.Resource = r.Namespace, "v1", "secrets"
		answer, err := c.cfg.API.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authv1.SubjectAccessReview{Spec: authv1.SubjectAccessReviewSpec{
			User:               "system:serviceaccount:" + r.Namespace + ":" + r.Account,
			Groups:             []string{"system:serviceaccounts", "system:serviceaccounts:" + r.Namespace, "system:authenticated"},
			ResourceAttributes: &how,
		}}, metav1.CreateOptions{})
		if err != nil {
			out.Problem = fmt.Sprintf("ask the API server: %v", err)
			return out
		}
		if answer.Status.Allowed && !answer.Status.Denied {
			out.May = true
			return out
		}
	}
	return out
}
