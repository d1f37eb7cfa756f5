package productpage

import (
	"encoding/json"
	"fmt"
	"html/template"
	"regexp"
)

// view is what both pages show; Index or Product is set.
type view struct {
	AssetVersion string
	User         string
	Index        *indexView
	Product      *productView
}

type indexView struct {
	Services []serviceRow
}

type serviceRow struct {
	Name, URL, Calls string
}

type productView struct {
	Title       string
	Description template.HTML
	Details     detailsView
	Reviews     reviewsView
}

// failure is set in a part of the page that could not be fetched.
type failure struct {
	Status  int
	Message string
}

type detailsView struct {
	Failure *failure // nil where Facts are there
	Author  string
	Facts   []fact
}

type fact struct{ Name, Value string }

type reviewsView struct {
	Failure     *failure `json:"-"` // nil where the rest is there
	Version     string   `json:"-"` // "v1", "" where the pod's name does not tell
	PodName     string   `json:"podname"`
	ClusterName string   `json:"clustername"`
	Reviews     []struct {
		Reviewer string      `json:"reviewer"`
		Text     string      `json:"text"`
		Rating   *ratingView `json:"rating"`
	} `json:"reviews"`
}

type ratingView struct {
	Stars int    `json:"stars"`
	Color string `json:"color"`
	Error string `json:"error"`
}

// Scale yields one entry per star of five, true for a filled one.
func (r ratingView) Scale() []bool {
	scale := make([]bool, 5)
	for i := range scale {
		scale[i] = i < r.Stars
	}
	return scale
}

// text is a JSON string or number, for the facts of a book come as either.
type text string

func (t *text) UnmarshalJSON(data []byte) error {
	var s string
	if json.Unmarshal(data, &s) == nil {
		*t = text(s)
		return nil
	}
	var n json.Number
	if err := json.Unmarshal(data, &n); err != nil {
		return fmt.Errorf("want a string or a number, got %.40q", data)
	}
	*t = text(n)
	return nil
}

// podVersion finds the version in a Deployment's pod name: reviews-v2-7d8f…
var podVersion = regexp.MustCompile(`^[a-z0-9-]*?-(v[0-9]+)(-|$)`)

func viewDetails(res result) detailsView {
	if res.Error != "" {
		return detailsView{Failure: &failure{res.Status, res.Error}}
	}
	var got struct {
		Author    text `json:"author"`
		Year      text `json:"year"`
		Type      text `json:"type"`
		Pages     text `json:"pages"`
		Publisher text `json:"publisher"`
		Language  text `json:"language"`
		ISBN10    text `json:"ISBN-10"`
		ISBN13    text `json:"ISBN-13"`
	}
	if err := json.Unmarshal(res.Body, &got); err != nil {
		return detailsView{Failure: &failure{res.Status, "The details service sent something else than details: " + err.Error()}}
	}
	v := detailsView{Author: string(got.Author)}
	for _, f := range []fact{
		{"Author", string(got.Author)},
		{"Year", string(got.Year)},
		{"Type", string(got.Type)},
		{"Pages", string(got.Pages)},
		{"Publisher", string(got.Publisher)},
		{"Language", string(got.Language)},
		{"ISBN-10", string(got.ISBN10)},
		{"ISBN-13", string(got.ISBN13)},
	} {
		if f.Value != "" {
			v.Facts = append(v.Facts, f)
		}
	}
	return v
}

func viewReviews(res result) reviewsView {
	if res.Error != "" {
		return reviewsView{Failure: &failure{res.Status, res.Error}}
	}
	var v reviewsView
	if err := json.Unmarshal(res.Body, &v); err != nil {
		return reviewsView{Failure: &failure{res.Status, "The reviews service sent something else than reviews: " + err.Error()}}
	}
	if m := podVersion.FindStringSubmatch(v.PodName); m != nil {
		v.Version = m[1]
	}
	if v.ClusterName == "null" {
		v.ClusterName = ""
	}
	return v
}
