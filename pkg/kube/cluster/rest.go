package cluster

import (
	"errors"
	"fmt"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Limits of the requests that one process makes, which are those of Istio.
const (
	clientQPS   = 80
	clientBurst = 160
)

const (
	mediaProtobuf = "application/vnd.kubernetes.protobuf"
	mediaJSON     = "application/json"
)

// RESTConfig returns how to reach the API server: by the file kubeconfig, or from inside a pod when that is empty. Kinds that
// are built in are exchanged as protobuf. options may change the result.
func RESTConfig(kubeconfig string, options ...func(*rest.Config)) (*rest.Config, error) {
	var config *rest.Config
	var err error
	if kubeconfig == "" {
		config, err = rest.InClusterConfig()
		if errors.Is(err, rest.ErrNotInCluster) {
			err = fmt.Errorf("%w: outside of a pod, name a kubeconfig file", err)
		}
	} else {
		config, err = clientcmd.BuildConfigFromFlags("", kubeconfig)
	}
	if err != nil {
		return nil, fmt.Errorf("find the API server: %w", err)
	}
	config.QPS, config.Burst = clientQPS, clientBurst
	config.ContentType = mediaProtobuf
	config.AcceptContentTypes = mediaProtobuf + "," + mediaJSON
	// The API server is near: compressing costs both sides more than it saves.
	config.DisableCompression = true
	for _, option := range options {
		option(config)
	}
	return config, nil
}
