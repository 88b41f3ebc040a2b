// Steps 1 and 2: videos are uploaded or recorded, a part of each is chosen, and the person to follow.

{
    const {make, send, clock} = studio;
    const MIN_PART = 0.1; // seconds between start and end
    const KINDS = "video/*,.mkv,.mts,.m2ts,.ts,.avi,.mov,.webm";

    // Upload files, with a bar that shows how far it is, and tell the server in which step they were given.
    const upload = (role, files, area) => {
        const chosen = role === "target" ? files.slice(0, 1) : files;
        const form = new FormData();
        for (const file of chosen) form.append("files", file);
        const bar = make("progress", {max: 1, value: 0, "aria-label": "uploading"});
        const names = chosen.map((file) => file.name).join(", ");
        const row = make("div", {className: "uploading"},
            make("p", {className: "quiet", textContent: `Uploading ${names}`}), bar);
        const request = new XMLHttpRequest();
        request.open("POST", "gradio_api/upload");
        request.upload.onprogress = (event) => { bar.value = event.loaded / event.total; };
        request.onloadend = () => {
            row.remove();
            if (request.status === 200) send({do: "upload", role, paths: JSON.parse(request.response)});
            else if (request.status === 413) studio.tell("This video is larger than the page takes.");
            else studio.tell("The upload broke off. Try again.");
        };
        area.append(row);
        request.send(form);
    };

    // Record with the camera of this computer, where there is one and the browser allows it.
    const record = async (role, area) => {
        let stream;
        try {
            stream = await navigator.mediaDevices.getUserMedia({video: {width: {ideal: 1280}}, audio: true})
                .catch(() => navigator.mediaDevices.getUserMedia({video: true}));
        } catch {
            studio.tell("The camera can't be used. Is it plugged in, free, and allowed for this page?");
            return;
        }
        const view = make("video", {srcObject: stream, muted: true, autoplay: true, playsInline: true});
        const button = make("button", {className: "main", textContent: "Start recording"});
        const leave = make("button", {textContent: "Cancel"});
        const panel = make("div", {className: "recording"}, view, make("div", {className: "buttons"}, button, leave));
        const close = () => {
            stream.getTracks().forEach((track) => track.stop());
            panel.remove();
        };
        leave.onclick = close;
        button.onclick = () => {
            const recorder = new MediaRecorder(stream), parts = [];
            recorder.ondataavailable = (event) => parts.push(event.data);
            recorder.onstop = () => {
                close();
                const ending = recorder.mimeType.includes("mp4") ? "mp4" : "webm";
                upload(role, [new File(parts, `recording.${ending}`, {type: recorder.mimeType})], area);
            };
            recorder.start();
            button.textContent = "Stop recording";
            button.onclick = () => recorder.stop();
            leave.remove();
        };
        area.append(panel);
    };

    // Where videos are given: a place to drop them, the sample, the camera.
    const giving = (role, area) => {
        const many = role === "source";
        const input = make("input", {type: "file", accept: KINDS, multiple: many});
        const label = make("label", {className: "drop"}, input,
            make("b", {textContent: many ? "Choose videos" : "Choose a video"}),
            make("span", {className: "quiet", textContent: "or drop them here"}));
        if (!many) label.lastChild.textContent = "or drop it here";
        input.onchange = () => {
            if (input.files.length) upload(role, [...input.files], area);
            input.value = "";
        };
        label.ondragover = (event) => { event.preventDefault(); label.classList.add("over"); };
        label.ondragleave = () => label.classList.remove("over");
        label.ondrop = (event) => {
            event.preventDefault();
            label.classList.remove("over");
            if (event.dataTransfer.files.length) upload(role, [...event.dataTransfer.files], area);
        };
        const sample = make("button", {textContent: `Use the sample ${role}`,
            onclick: () => send({do: "sample", role})});
        const camera = navigator.mediaDevices
            ? make("button", {textContent: "Record with the camera", onclick: () => record(role, area)}) : null;
        return make("div", {className: "giving"}, label, make("div", {className: "buttons"}, sample, camera));
    };

    // The player of a chosen video, its part, and its people. Returns {element, update}.
    const editor = (role, first) => {
        let video = first;
        const key = first.key, id = `${role}-${key}`;
        const end = () => video.end ?? video.seconds;
        const player = make("video", {controls: true, playsInline: true, preload: "metadata"});
        player.setAttribute("aria-label", first.name);
        const waiting = make("p", {className: "quiet waiting", textContent: "Opening the video …"});
        const stage = make("div", {className: "stage"}, waiting, player);
        stage.style.setProperty("--shape", first.shape);
        const handle = (name) => make("input", {type: "range", min: 0, step: 0.1,
            "aria-label": `${name} of the part`});
        const low = handle("Start"), high = handle("End");
        const fill = make("i");
        const slider = make("div", {className: "part"}, fill, low, high);
        const typed = (name) => make("input", {type: "text", inputMode: "decimal", "aria-label": name});
        const from = typed("Start"), to = typed("End");
        const fromHere = make("button", {className: "small", textContent: "Start here"});
        const toHere = make("button", {className: "small", textContent: "End here"});
        const parts = make("div", {className: "parts"}, slider, make("div", {className: "limits"},
            make("span", {}, from, fromHere), make("span", {}, toHere, to)));
        const picture = make("img", {alt: "the people at the beginning"});
        const scene = make("div", {className: "scene"}, picture);
        const people = make("fieldset", {className: "people", hidden: true},
            make("legend", {textContent: "Whom to follow? Tap one."}), scene);
        const facts = make("p", {className: "quiet"});
        const error = make("p", {className: "error", role: "alert"});
        const element = make("div", {className: "editor"}, stage,
            make("div", {className: "side"}, parts, people, facts, error));

        // While somebody types or drags, what comes from the server must not change what is under the fingers.
        let editing = false;
        parts.addEventListener("input", () => { editing = true; });
        for (const ended of ["change", "focusout"]) parts.addEventListener(ended, () => { editing = false; });
        const show = (begin, finish) => {
            low.value = begin;
            high.value = finish;
            const share = (seconds) => `${100 * seconds / (video.seconds || 1)}%`;
            fill.style.left = share(begin);
            fill.style.width = share(finish - begin);
            from.value = clock(begin);
            to.value = clock(finish);
        };
        const trim = async (begin, finish) => {
            if (!await send({do: "trim", key, begin: String(begin), end: finish})) show(video.begin, end());
        };
        // The end of the video is sent as no end at all, so that a whole video stays a whole one.
        const limit = (seconds) => seconds > video.seconds - MIN_PART / 2 ? "" : seconds.toFixed(1);
        const drag = (moved) => {
            if (moved === low) low.value = Math.min(low.value, high.value - MIN_PART);
            else high.value = Math.max(high.value, +low.value + MIN_PART);
            show(+low.value, +high.value);
            player.currentTime = +moved.value;
        };
        for (const moved of [low, high]) {
            moved.oninput = () => drag(moved);
            moved.onchange = () => trim((+low.value).toFixed(1), limit(+high.value));
        }
        fromHere.onclick = () => trim(Math.min(player.currentTime, end() - MIN_PART).toFixed(1), limit(end()));
        toHere.onclick = () => trim(video.begin, limit(Math.max(player.currentTime, video.begin + MIN_PART)));
        from.onchange = () => trim(from.value, limit(end()));
        to.onchange = () => trim(video.begin, to.value);
        player.onplay = () => {
            const outside = player.currentTime < video.begin - 0.05 || player.currentTime >= end() - 0.05;
            if (outside) player.currentTime = video.begin;
        };
        player.ontimeupdate = () => {
            if (!player.paused && video.end && player.currentTime >= video.end) player.pause();
        };

        const drawPeople = () => {
            if (!video.people) return; // they are looked for; until then, those of before stay
            people.hidden = video.people.length < 2;
            if (people.hidden || JSON.stringify(video.people) === people.dataset.drawn) return;
            people.dataset.drawn = JSON.stringify(video.people);
            picture.src = video.picture;
            const focused = scene.contains(document.activeElement);
            scene.querySelectorAll("label").forEach((label) => label.remove());
            video.people.forEach((person, index) => {
                const choice = make("input", {type: "radio", name: `${id}-person`, value: person.point,
                    checked: person.chosen, onchange: () => send({do: "follow", key, point: person.point})});
                choice.setAttribute("aria-label", `Person ${index + 1}`);
                const label = make("label", {}, choice, make("span", {textContent: index + 1}));
                const [left, top, width, height] = person.box;
                Object.assign(label.style, {left: `${left}%`, top: `${top}%`, width: `${width}%`, height: `${height}%`,
                    zIndex: Math.round(1000 - width * height / 10)}); // the smaller one of two is in front
                scene.append(label);
                if (focused && person.chosen) choice.focus();
            });
        };
        const update = (now) => {
            const moved = now.begin !== video.begin;
            video = now;
            error.textContent = role === "target" ? "" : video.error; // the job that looks at a target says it below
            stage.hidden = Boolean(video.error);
            facts.textContent = video.facts;
            stage.style.setProperty("--shape", video.shape);
            element.classList.toggle("ready", Boolean(video.film));
            waiting.hidden = Boolean(video.film || video.error);
            player.hidden = !video.film;
            if (video.film && player.getAttribute("src") !== video.film) {
                player.src = video.film;
                if (video.picture) player.poster = video.picture;
            }
            if (moved) player.currentTime = video.begin;
            parts.hidden = !video.film || !video.seconds;
            low.max = high.max = video.seconds;
            if (!editing) show(video.begin, end());
            drawPeople();
        };
        update(first);
        return {element, update};
    };

    const step = (role) => (element, props, watch) => {
        const root = element.querySelector(".own");
        const list = make("div", {className: "list", role: "group"});
        list.setAttribute("aria-label", "the chosen videos");
        const place = make("div", {});
        const area = make("div", {className: "area"});
        const more = make("details", {className: "more"}, make("summary", {}));
        const editors = new Map();
        let selected = null, before = [];
        area.append(giving(role, area));
        root.append(list, place, area, more);

        const update = () => {
            const videos = Array.isArray(props.value) ? props.value : [];
            const keys = videos.map((video) => video.key + video.name);
            for (const key of [...editors.keys()]) {
                if (!keys.includes(key)) editors.delete(key);
            }
            // A video that has just come is shown; else the same one as before, or the last one.
            const come = keys.find((key) => !before.includes(key));
            selected = come ?? (keys.includes(selected) ? selected : keys.at(-1) ?? null);
            before = keys;
            list.replaceChildren(...videos.map((video, index) => {
                const pick = make("button", {className: "pick", onclick: () => { selected = keys[index]; update(); }},
                    video.picture ? make("img", {src: video.picture, alt: ""}) : make("i"),
                    make("span", {textContent: video.name}));
                pick.setAttribute("aria-pressed", keys[index] === selected);
                const drop = make("button", {className: "drop-it", textContent: "✕", title: "Take another one",
                    onclick: () => send({do: "remove", key: video.key})});
                drop.setAttribute("aria-label", `Remove ${video.name}`);
                return make("div", {className: "chosen"}, pick, drop);
            }));
            const video = videos[keys.indexOf(selected)];
            if (video) {
                if (!editors.has(selected)) editors.set(selected, editor(role, video));
                const {element: shown, update: renew} = editors.get(selected);
                renew(video);
                if (place.firstChild !== shown) {
                    place.querySelectorAll("video").forEach((player) => player.pause());
                    place.replaceChildren(shown);
                }
            } else {
                place.replaceChildren();
            }
            // With a video, the place for more is folded (source) or gone (target), so that nobody scrolls past it.
            more.hidden = role === "target" || !videos.length;
            area.hidden = role === "target" && videos.length > 0;
            more.firstChild.textContent = "Add more videos";
            const home = more.hidden ? root : more;
            if (area.parentElement !== home) home.append(area);
        };
        watch("value", update);
        update();
    };
    studio.draw.target = step("target");
    studio.draw.source = step("source");
}
