package credential

import (
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
)

// MayRead reports whether Roles and RoleBindings of a namespace let a service account of the same namespace read a Secret: what the
// API server would say, where there is none to ask.
func MayRead(roles []*rbacv1.Role, bindings []*rbacv1.RoleBinding, namespace, account, secret string) bool {
	return slices.ContainsFunc(bindings, func(b *rbacv1.RoleBinding) bool {
		if b.Namespace != namespace || b.RoleRef.Kind != "Role" || !slices.ContainsFunc(b.Subjects, func(s rbacv1.Subject) bool { return isAccount(s, namespace, account) }) {
			return false
		}
		return slices.ContainsFunc(roles, func(r *rbacv1.Role) bool {
			return r.Namespace == namespace && r.Name == b.RoleRef.Name && slices.ContainsFunc(r.Rules, func(rule rbacv1.PolicyRule) bool { return reads(rule, secret) })
		})
	})
}

func isAccount(s rbacv1.Subject, namespace, account string) bool {
	switch s.Kind {
	case rbacv1.ServiceAccountKind:
		return s.Name == account && (s.Namespace == namespace || s.Namespace == "")
	case rbacv1.UserKind:
		return s.Name == "system:serviceaccount:"+namespace+":"+account
	case rbacv1.GroupKind:
		return s.Name == "system:serviceaccounts" || s.Name == "system:serviceaccounts:"+namespace
	}
	return false
}

// reads reports whether a rule allows to get one Secret, or to list all.
func reads(rule rbacv1.PolicyRule, secret string) bool {
	has := func(list []string, want string) bool {
		return slices.Contains(list, want) || slices.Contains(list, "*")
	}
	if !has(rule.APIGroups, "") || !has(rule.Resources, "secrets") {
		return false
	}
	if len(rule.ResourceNames) > 0 {
		return slices.Contains(rule.ResourceNames, secret) && has(rule.Verbs, "get")
	}
	return has(rule.Verbs, "get") || has(rule.Verbs, "list")
}
