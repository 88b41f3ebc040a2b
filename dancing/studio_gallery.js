// The results: a gallery of moving pictures, one dance in large, or two of them side by side in step.

{
    const {make, send, clock} = studio;
    const APART = 0.08; // seconds that two films may be apart before one is moved
    const still = matchMedia("(prefers-reduced-motion: reduce)");

    // Films of the gallery play while they can be seen; where a person wants no movement, while they are pointed at.
    const seen = new IntersectionObserver((entries) => {
        for (const {target, isIntersecting} of entries) {
            if (!isIntersecting) target.pause();
            else if (!still.matches) target.play().catch(() => {});
        }
    }, {threshold: 0.25});

    const title = (dance) => `${dance.target} like ${dance.source}`;
    const link = (text, address) => make("a", {className: "button small", href: address, textContent: text,
        download: decodeURIComponent(address.split("/").at(-1))});

    // One dance in large, with its files.
    const single = (dance) => {
        const player = make("video", {id: "player", src: `${dance.film}#t=0.001`, controls: true, playsInline: true,
            preload: "metadata"});
        const motion = dance.motion ? link("Motion (BVH, for Blender)", dance.motion) : null;
        const words = make("p", {}, make("b", {textContent: title(dance)}), make("br"),
            make("span", {className: "quiet", textContent: `${dance.about}, ${dance.size}`}));
        const files = make("div", {className: "buttons"}, link("Video (mp4)", dance.result),
            link("Side by side (mp4)", dance.film), motion);
        return make("div", {className: "large"}, player, words, files);
    };

    // Two dances in step: the first one leads, the second one follows its time.
    const pair = (dances) => {
        const films = dances.map((dance) => make("video", {src: `${dance.result}#t=0.001`, playsInline: true,
            preload: "auto"}));
        const [leader, follower] = films;
        follower.muted = true;
        const play = make("button", {className: "small play", textContent: "Play"});
        const bar = make("input", {type: "range", min: 0, step: 0.01, value: 0, "aria-label": "time of both films"});
        const time = make("span", {className: "quiet time", textContent: clock(0)});
        const length = () => Math.max(...films.map((film) => film.duration || 0));
        const longer = () => films[0].duration >= (films[1].duration || 0) ? films[0] : films[1];
        const go = (seconds) => {
            for (const film of films) film.currentTime = Math.min(seconds, film.duration || 0);
        };
        const tick = () => {
            if (!play.isConnected) return films.forEach((film) => film.pause());
            const now = longer().currentTime;
            if (!bar.matches(":active")) bar.value = now;
            time.textContent = clock(now);
            const running = films.some((film) => !film.paused), ended = films.some((film) => film.ended);
            if (running && !ended && Math.abs(leader.currentTime - follower.currentTime) > APART) {
                follower.currentTime = leader.currentTime;
            }
            if (!running && play.textContent === "Pause") play.textContent = "Play";
            requestAnimationFrame(tick);
        };
        play.onclick = () => {
            if (films.some((film) => !film.paused)) {
                films.forEach((film) => film.pause());
                return;
            }
            go(longer().ended || +bar.value >= length() - 0.05 ? 0 : +bar.value);
            films.filter((film) => !(film.currentTime >= film.duration)).forEach((film) => film.play());
            play.textContent = "Pause";
        };
        bar.oninput = () => {
            films.forEach((film) => film.pause());
            go(+bar.value);
        };
        films.forEach((film) => { film.onloadedmetadata = () => { bar.max = length(); }; });
        requestAnimationFrame(tick);
        const figures = films.map((film, index) => make("figure", {}, film, make("figcaption", {},
            make("b", {textContent: title(dances[index])}), make("br"),
            make("span", {className: "quiet", textContent: dances[index].about}))));
        return make("div", {className: "large pair"}, make("div", {className: "films"}, ...figures),
            make("div", {className: "timebar"}, play, bar, time));
    };

    // A dance in the gallery: its moving picture opens it, and two buttons below compare and delete it.
    const tile = (dance, open, compare) => {
        const film = make("video", {muted: true, loop: true, playsInline: true, preload: "auto"});
        film.onpointerenter = () => film.play().catch(() => {});
        film.onpointerleave = () => still.matches && film.pause();
        seen.observe(film);
        const quiet = (text) => make("span", {className: "quiet", textContent: text});
        const opener = make("button", {className: "open", onclick: open}, film, make("span", {},
            make("b", {textContent: title(dance)}), quiet(dance.about), quiet(dance.size)));
        opener.setAttribute("aria-label", `Show ${title(dance)}, ${dance.about}`);
        const choice = make("button", {className: "small", textContent: "Compare", onclick: compare});
        const remove = make("button", {className: "small", textContent: "Delete"});
        remove.setAttribute("aria-label", `Delete ${title(dance)}, ${dance.about}`);
        remove.onclick = () => studio.askTwice(remove, "Really?", () => send({do: "delete", key: dance.key}));
        const element = make("div", {className: "tile"}, opener, make("div", {className: "buttons"}, choice, remove));
        return {element, film, opener, choice};
    };

    studio.draw.gallery = (element, props, watch) => {
        const root = element.querySelector(".own"), tiles = new Map();
        const viewer = make("div", {className: "viewer"}), grid = make("div", {className: "tiles"});
        const hint = make("p", {className: "quiet hint", role: "status"});
        let dances = [], opened = null, compared = [], shown = null;
        root.append(make("h2", {textContent: "Results"}), viewer, hint, grid);

        const draw = () => {
            element.closest("#results").classList.toggle("empty", !dances.length);
            const keys = compared.length === 2 ? compared : [opened];
            const large = keys.flatMap((key) => dances.filter((dance) => dance.key === key));
            const wanted = large.map((dance) => `${dance.key} ${dance.motion}`).join(); // the motion comes last
            if (wanted !== shown) {
                shown = wanted;
                viewer.replaceChildren(...large.length === 2 ? [pair(large)] : large.map(single));
            }
            hint.textContent = compared.length === 1 ? "Choose one more to compare." : "";
            for (const [key, {element: shownTile, opener, choice}] of tiles) {
                shownTile.classList.toggle("opened", compared.length < 2 && key === opened);
                opener.setAttribute("aria-current", compared.length < 2 && key === opened);
                choice.setAttribute("aria-pressed", compared.includes(key));
            }
        };
        const update = () => {
            const before = dances.map((dance) => dance.key);
            dances = Array.isArray(props.value) ? props.value : [];
            const keys = dances.map((dance) => dance.key);
            for (const [key, {element: old, film}] of tiles) {
                if (!keys.includes(key)) {
                    seen.unobserve(film);
                    old.remove();
                    tiles.delete(key);
                }
            }
            compared = compared.filter((key) => keys.includes(key));
            // A new dance is shown at once.
            if (!keys.includes(opened) || !before.includes(keys[0])) opened = keys[0] ?? null;
            dances.forEach((dance, index) => {
                if (!tiles.has(dance.key)) {
                    const {key} = dance;
                    tiles.set(key, tile(dance, () => {
                        [opened, compared] = [key, []];
                        draw();
                        viewer.scrollIntoView({block: "nearest", behavior: "smooth"});
                    }, () => {
                        const others = compared.filter((other) => other !== key);
                        compared = compared.includes(key) ? others : [...others.slice(-1), key];
                        draw();
                        if (compared.length === 2) viewer.scrollIntoView({block: "nearest", behavior: "smooth"});
                    }));
                }
                const {element: place, film} = tiles.get(dance.key);
                film.style.objectPosition = dance.middle;
                if (dance.picture && film.getAttribute("poster") !== dance.picture) film.poster = dance.picture;
                if (dance.moving && film.getAttribute("src") !== dance.moving) {
                    film.src = dance.moving;
                    if (!still.matches) film.play().catch(() => {});
                }
                if (grid.children[index] !== place) grid.insertBefore(place, grid.children[index] ?? null);
            });
            draw();
        };
        watch("value", update);
        update();
    };
}
