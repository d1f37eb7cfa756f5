package policy

import (
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"
	meshapi "istio.io/api/mesh/v1alpha1"
)

// NormalizePath sets how paths are brought into one form before they are matched and forwarded. Paths with a fragment are refused by
// Envoy in any case.
func NormalizePath(mesh *meshapi.MeshConfig, hcm *hcmv3.HttpConnectionManager) {
	kind := mesh.GetPathNormalization().GetNormalization()
	hcm.NormalizePath = wrapperspb.Bool(kind != meshapi.MeshConfig_ProxyPathNormalization_NONE)
	switch kind {
	case meshapi.MeshConfig_ProxyPathNormalization_DECODE_AND_MERGE_SLASHES:
		hcm.PathWithEscapedSlashesAction = hcmv3.HttpConnectionManager_UNESCAPE_AND_FORWARD
		hcm.MergeSlashes = true
	case meshapi.MeshConfig_ProxyPathNormalization_MERGE_SLASHES:
		hcm.MergeSlashes = true
	}
}
