// What the page's own script has in common (DanceStudio.py): how it speaks to the server, buttons that ask twice,
// folded parts that stay open, and short messages. studio_videos.js and studio_gallery.js draw the rest.
//
// State goes one way and wishes the other. The server gives each drawn part a value, and `studio.draw` has a function
// for each part that is called once, and then whenever its value changes. What a person does is a message such as
// {do: "trim", key: "source-1", begin: "1", end: ""}, which `studio.send` gives to Studio.obey.

const studio = {draw: {}, server: null, refresh: () => {}};

studio.connect = (server, refresh) => Object.assign(studio, {server, refresh});

// Send a wish. Returns whether it was fulfilled; if not, the person is told why.
studio.send = async (message) => {
    let answer = "The page does not answer. Is it still running?";
    try {
        answer = await studio.server.obey(message);
    } catch (error) {
        console.error(error);
    }
    if (answer) studio.tell(answer);
    studio.refresh();
    return !answer;
};

// Show a sentence for some seconds.
studio.tell = (text) => {
    document.querySelector(".told")?.remove();
    const told = studio.make("p", {className: "told", role: "alert", textContent: text});
    told.onclick = () => told.remove();
    document.querySelector(".gradio-container").append(told);
    setTimeout(() => told.remove(), 9000);
};

// A new element. `set`: its properties; those with a dash, and role, are attributes. Children that are null are left
// out.
studio.make = (tag, set = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(set)) {
        if (name === "role" || name.includes("-")) element.setAttribute(name, value);
        else element[name] = value;
    }
    element.append(...children.filter((child) => child != null));
    return element;
};

// Seconds as a person writes them: 0:07.5
studio.clock = (seconds) => {
    const tenths = Math.round(seconds * 10);
    const rest = ((tenths % 600) / 10).toFixed(1);
    return `${Math.floor(tenths / 600)}:${rest.padStart(4, "0")}`;
};

// A button that asks once more, in its place, before it does something that can't be undone.
studio.askTwice = (button, question, act) => {
    if (button.dataset.asked) {
        delete button.dataset.asked;
        button.textContent = button.dataset.label;
        act();
        return;
    }
    button.dataset.label = button.textContent;
    button.dataset.asked = "yes";
    button.textContent = question;
    setTimeout(() => {
        if (button.dataset.asked) {
            delete button.dataset.asked;
            button.textContent = button.dataset.label;
        }
    }, 5000);
};

// Buttons that the server has written: data-send is the message, data-confirm the question before it.
document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-send]");
    if (!button) return;
    const act = () => studio.send(JSON.parse(button.dataset.send));
    if (button.dataset.confirm) studio.askTwice(button, button.dataset.confirm, act);
    else act();
});

// A folded part that somebody has opened stays open when the server writes it anew.
const opened = new Set(), known = new Set();
document.addEventListener("click", (event) => {
    const key = event.target.closest("summary")?.parentElement.dataset.key;
    if (key) opened.has(key) ? opened.delete(key) : opened.add(key);
});
new MutationObserver(() => {
    for (const part of document.querySelectorAll("details[data-key]")) {
        if ("opened" in part.dataset && !known.has(part.dataset.key)) opened.add(part.dataset.key);
        known.add(part.dataset.key);
        if (part.open !== opened.has(part.dataset.key)) part.open = opened.has(part.dataset.key);
    }
}).observe(document, {subtree: true, childList: true, attributes: true, attributeFilter: ["open", "data-key"]});
