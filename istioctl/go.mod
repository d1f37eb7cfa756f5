module github.com/isthmus-mesh/isthmus/istioctl

go 1.26.0

replace github.com/isthmus-mesh/isthmus/pkg => ../pkg

replace github.com/isthmus-mesh/isthmus/pkg/kube => ../pkg/kube

replace github.com/isthmus-mesh/isthmus/sandbox => ../sandbox

replace github.com/isthmus-mesh/isthmus/pilot => ../pilot

replace github.com/isthmus-mesh/isthmus/ztunnel => ../ztunnel

replace github.com/isthmus-mesh/isthmus/cni => ../cni

require (
	github.com/inconshreveable/mousetrap v1.1.0 // indirect
	github.com/spf13/cobra v1.10.2 // indirect
	github.com/spf13/pflag v1.0.9 // indirect
)
