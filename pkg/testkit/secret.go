package testkit

import (
	"encoding/base64"
	"fmt"
)

// Secret is the manifest of a Secret of type TLS whose certificate is for NAME.NAMESPACE, with the root as ca.crt; key is what of it is
// secret, in PEM form.
func (c *CA) Secret(namespace, name string) (manifest string, key []byte, err error) {
	issued, err := c.Named(name + "." + namespace)
	if err != nil {
		return "", nil, err
	}
	certificate, key, err := KeyPair(issued)
	if err != nil {
		return "", nil, err
	}
	encoded := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: %s, namespace: %s}\ndata: {tls.crt: %s, tls.key: %s, ca.crt: %s}\n---\n",
		name, namespace, encoded(certificate), encoded(key), encoded(c.RootPEM())), key, nil
}

// SecretReader is the manifests of a Role and its binding, by which a ServiceAccount may read all Secrets of its namespace.
func SecretReader(namespace, account string) string {
	return fmt.Sprintf(`apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader, namespace: %[1]s}
rules: [{apiGroups: [""], resources: [secrets], verbs: [get, watch, list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reader, namespace: %[1]s}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects: [{kind: ServiceAccount, name: %[2]s, namespace: %[1]s}]
---
`, namespace, account)
}
