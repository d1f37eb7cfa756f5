module github.com/isthmus-mesh/isthmus/istioctl

go 1.26.0

replace github.com/isthmus-mesh/isthmus/pkg => ../pkg
replace github.com/isthmus-mesh/isthmus/pkg/kube => ../pkg/kube
replace github.com/isthmus-mesh/isthmus/sandbox => ../sandbox
replace github.com/isthmus-mesh/isthmus/pilot => ../pilot
replace github.com/isthmus-mesh/isthmus/ztunnel => ../ztunnel
replace github.com/isthmus-mesh/isthmus/cni => ../cni
