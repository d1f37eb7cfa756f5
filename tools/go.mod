module github.com/isthmus-mesh/isthmus/tools

go 1.26.0

replace github.com/isthmus-mesh/isthmus/pkg => ../pkg

replace github.com/isthmus-mesh/isthmus/pkg/kube => ../pkg/kube

require (
	github.com/bufbuild/protocompile v0.14.1
	google.golang.org/protobuf v1.36.12
)

require golang.org/x/sync v0.8.0 // indirect

tool google.golang.org/protobuf/cmd/protoc-gen-go
