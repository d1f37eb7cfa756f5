//go:build envtest

package apiserver_test

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/isthmus-mesh/isthmus/pkg/kube/kubetest"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"
)

func TestServer(t *testing.T) {
	start := time.Now()
	s := kubetest.New(t)
	t.Logf("serving with CRDs after %v", time.Since(start))
	admin, err := kubernetes.NewForConfig(s.REST())
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	if _, err := admin.CoreV1().ServiceAccounts("default").Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "reader"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	config, err := s.Account(ctx, types.NamespacedName{Namespace: "default", Name: "reader"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	reader, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := reader.CoreV1().Pods("").List(ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Fatalf("an account without a role lists pods: %v", err)
	}
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "reader"}, Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"list"}}}}
	if _, err := admin.RbacV1().ClusterRoles().Create(ctx, role, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "reader"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "reader"},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: "default", Name: "reader"}},
	}
	if _, err := admin.RbacV1().ClusterRoleBindings().Create(ctx, binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	wait.Until(t, time.Minute, "the role counts", func() bool {
		_, err = reader.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
		return err == nil
	}, func() string { return err.Error() })
	s.StopAPI()
	if _, err := admin.CoreV1().Pods("").List(ctx, metav1.ListOptions{}); err == nil {
		t.Fatal("a stopped server answers")
	}
	if err := s.StartAPI(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.CoreV1().ServiceAccounts("default").Get(ctx, "reader", metav1.GetOptions{}); err != nil {
		t.Fatal(err)
	}
}
