// Package cluster watches a Kubernetes API server.
package cluster

import (
 _ "k8s.io/client-go/rest"
 _ "k8s.io/client-go/tools/cache"
 _ "k8s.io/client-go/tools/clientcmd"
 _ "k8s.io/client-go/metadata"
 _ "k8s.io/client-go/kubernetes/scheme"
)
