module github.com/isthmus-mesh/isthmus/sandbox

go 1.26.0

replace github.com/isthmus-mesh/isthmus/pkg => ../pkg

replace github.com/isthmus-mesh/isthmus/pkg/kube => ../pkg/kube

replace github.com/isthmus-mesh/isthmus/pilot => ../pilot

replace github.com/isthmus-mesh/isthmus/cni => ../cni

replace github.com/isthmus-mesh/isthmus/ztunnel => ../ztunnel

require (
	github.com/containernetworking/cni v1.3.1 // indirect
	github.com/go-jose/go-jose/v4 v4.1.8 // indirect
	github.com/miekg/dns v1.1.73 // indirect
	github.com/vishvananda/netlink v1.3.1 // indirect
	github.com/vishvananda/netns v0.0.5 // indirect
	go.uber.org/goleak v1.3.0 // indirect
	go.yaml.in/yaml/v2 v2.4.3 // indirect
	golang.org/x/net v0.57.0 // indirect
	golang.org/x/sys v0.47.0 // indirect
	k8s.io/api v0.36.6 // indirect
	k8s.io/apimachinery v0.36.6 // indirect
	sigs.k8s.io/yaml v1.6.0 // indirect
)
