package webhook

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

const (
	// maxBody bounds a request: the object as it is to be and as it was, each of what etcd takes, and what surrounds them.
	maxBody = 8 << 20
	// maxWarnings bounds what is said beside an answer, maxWarning each part of it: the API server cuts off the rest.
	maxWarnings, maxWarning = 16, 256
	// maxProblems bounds what is said to be wrong.
	maxProblems = 20
)

// serve answers one AdmissionReview with another.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	defer func() {
		if p := recover(); p != nil {
			s.cfg.Log.Error("the validation of an object has failed", "panic", p, "stack", string(debug.Stack()))
			s.fail(w, http.StatusInternalServerError, "the validation has failed; the control plane's log says why")
		}
	}()
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		s.fail(w, http.StatusMethodNotAllowed, "POST an AdmissionReview")
		return
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		s.fail(w, http.StatusUnsupportedMediaType, "want Content-Type: application/json")
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		s.fail(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("a review may have %d bytes", large.Limit))
		return
	}
	if err != nil {
		s.fail(w, http.StatusBadRequest, "the body could not be read")
		return
	}
	review := &admissionv1.AdmissionReview{}
	if err := json.Unmarshal(body, review); err != nil {
		s.fail(w, http.StatusBadRequest, "not an AdmissionReview: "+err.Error())
		return
	}
	if review.Request == nil || review.APIVersion != admissionv1.SchemeGroupVersion.String() {
		s.fail(w, http.StatusBadRequest, "want an AdmissionReview of "+admissionv1.SchemeGroupVersion.String()+" with a request")
		return
	}
	answer, err := json.Marshal(&admissionv1.AdmissionReview{TypeMeta: review.TypeMeta, Response: s.review(review.Request)})
	if err != nil {
		s.fail(w, http.StatusInternalServerError, err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(answer) // who has gone does not need an answer
}

func (s *Server) fail(w http.ResponseWriter, status int, message string) {
	s.metrics.malformed.WithLabelValues(strconv.Itoa(status)).Inc()
	http.Error(w, message, status)
}

// review judges the object of a request.
func (s *Server) review(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	out := &admissionv1.AdmissionResponse{UID: r.UID, Allowed: true}
	problems := s.problems(r)
	var wrong []kube.ObjectError
	for _, p := range problems {
		if !p.Warning {
			wrong = append(wrong, p)
			continue
		}
		if len(out.Warnings) < maxWarnings {
			out.Warnings = append(out.Warnings, clip(p.Error(), maxWarning))
		}
	}
	if len(wrong) == 0 {
		s.metrics.passed.WithLabelValues(r.Resource.Group, r.Resource.Version, r.Resource.Resource).Inc()
		return out
	}
	s.metrics.failed.WithLabelValues(r.Resource.Group, r.Resource.Version, r.Resource.Resource, "invalid_resource").Inc()
	out.Allowed, out.Result = false, refusal(r, wrong)
	s.cfg.Log.Info("an object is refused", "kind", r.Kind.Kind, "namespace", r.Namespace, "name", r.Name, "user", r.UserInfo.Username, "reason", out.Result.Message)
	return out
}

// problems are what is wrong with the object of a request. What goes away is always right, and so is what only changes its status.
func (s *Server) problems(r *admissionv1.AdmissionRequest) []kube.ObjectError {
	if r.Operation != admissionv1.Create && r.Operation != admissionv1.Update || r.SubResource != "" || len(r.Object.Raw) == 0 {
		return nil
	}
	var header metav1.PartialObjectMetadata
	if err := json.Unmarshal(r.Object.Raw, &header); err == nil && header.DeletionTimestamp != nil {
		return nil // its finalizers must be able to finish
	}
	decoded, problems := kube.Decode("", r.Object.Raw)
	out := problems[:0]
	for _, p := range problems {
		if p.Line = 0; !p.Warning { // a kind that is not read is not our business
			out = append(out, p)
		}
	}
	for _, d := range decoded {
		out = append(out, kube.Admit(d.Object)...)
	}
	return out
}

// refusal says all that is wrong, with the fields.
func refusal(r *admissionv1.AdmissionRequest, wrong []kube.ObjectError) *metav1.Status {
	details := &metav1.StatusDetails{Name: r.Name, Group: r.Kind.Group, Kind: r.Kind.Kind}
	var texts []string
	for i, p := range wrong {
		if i == maxProblems {
			texts = append(texts, fmt.Sprintf("and %d more", len(wrong)-maxProblems))
			break
		}
		text := p.Reason
		if p.Field != "" {
			text = p.Field + ": " + p.Reason
		}
		texts = append(texts, clip(text, 1024))
		details.Causes = append(details.Causes, metav1.StatusCause{Type: metav1.CauseTypeFieldValueInvalid, Message: clip(p.Reason, 1024), Field: p.Field})
	}
	name := r.Name
	if r.Namespace != "" {
		name = r.Namespace + "/" + name
	}
	return &metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusUnprocessableEntity, Reason: metav1.StatusReasonInvalid, Details: details,
		Message: strings.TrimSpace(r.Kind.Kind+" "+strings.TrimSuffix(name, "/")) + ": " + strings.Join(texts, "; "),
	}
}

func clip(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	return strings.ToValidUTF8(text[:limit-3], "") + "..."
}
